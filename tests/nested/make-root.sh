#!/bin/bash
# make-root.sh - builds what stock Linux guests boot from in the tests: initramfs
# archives, and if wanted a disk image with the same files, from Debian packages.
#
#   make-root.sh [-d] [-i] [-r] [-s] OUTDIR
#
#   (always)  OUTDIR/root.cpio         busybox, the kernel's modules, /init, /tests
#   -i        OUTDIR/root-io.cpio      the same with ping, blocks and streams; the last
#                                      two and a disk's files, for the host, in OUTDIR/io
#   -r        OUTDIR/root-rt.cpio      the same with cyclictest and hackbench
#   -s        OUTDIR/root-stress.cpio  the same with stress-ng
#   -d        OUTDIR/root.img          root.cpio's files on an ext4 file system
#
# Prints the folder of the kernel that the modules are of, which has `vmlinux` and
# `vmlinuz`. /init is tests/nested/guest/init; what it understands on the kernel's
# command line stands there. Nothing is fetched but packages, and those once: they
# are kept beside the kernel (see nested-host.sh for NESTED_HOST_DIR).
# Needs (Debian): busybox-static cpio xz-utils; for -d and -i e2fsprogs, for -i gcc.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
die() { echo "make-root: $*" >&2; exit 1; }

disk=0 sets=()
while getopts 'dirs' o; do
  case $o in
    d) disk=1;; i) sets+=(io);; r) sets+=(rt);; s) sets+=(stress);;
    *) sed -n '2,/^set -eu/{/^#/p}' "$0" >&2; exit 2;;
  esac
done
shift $((OPTIND - 1))
[ $# = 1 ] || { sed -n '2,/^set -eu/{/^#/p}' "$0" >&2; exit 2; }
mkdir -p "$1"
out=$(readlink -f "$1")
kernel=$("$here/nested-host.sh" -K)
debs=$(dirname "$kernel")/debs
work=$(mktemp -d "$out/.root.XXXXXX")
trap 'rm -rf "$work"' EXIT

archive() { # folder, archive
  find "$1" -exec touch -h -d @0 {} +
  (cd "$1" && find . | LC_ALL=C sort | cpio -o --reproducible -H newc -R 0:0 --quiet) >"$2.new"
  mv "$2.new" "$2"
}

# ------------------------------------------------------------------ the base
# In load order. What this kernel has built in, or not at all, is left out.
modules='virtio_mmio virtio_blk failover net_failover virtio_net virtio-rng vsock
  vmw_vsock_virtio_transport_common vmw_vsock_virtio_transport virtio_balloon
  crc16 mbcache crc32c_generic libcrc32c jbd2 ext4 button evdev pvpanic pvpanic-mmio'
root=$work/root
mkdir -p "$root"/{bin,dev,etc,mnt,modules,proc,run,sbin,sys,tests,tmp}
busybox=$(command -v busybox) || die "no busybox: install busybox-static"
cp "$busybox" "$root/bin/busybox"
for applet in $("$busybox" --list); do
  [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
: >"$root/modules/order"
for module in $modules; do
  file=$(find "$kernel/lib/modules" -name "$module.ko*" -print -quit)
  case $file in
    '') continue;;
    *.xz) xz -dc "$file" >"$root/modules/$module.ko";;
    *.zst) zstd -dqc "$file" >"$root/modules/$module.ko";;
    *) cp "$file" "$root/modules/$module.ko";;
  esac
  echo "$module" >>"$root/modules/order"
done
cp "$here/guest/init" "$root/init"
chmod 755 "$root/init"
ln -s ../init "$root/sbin/init"
cp "$here"/guest/*.sh "$root/tests/"
archive "$root" "$out/root.cpio"

# ------------------------------------------------------------------ programs
unpacked=$work/packages
mkdir -p "$debs" "$unpacked"
fetch() { # package: unpacked into $unpacked
  local deb
  deb=$(find "$debs" -name "${1}_*.deb" -print -quit)
  if [ -z "$deb" ]; then
    (cd "$debs" && apt-get download -q "$1") >"$work/apt.log" 2>&1 ||
      { cat "$work/apt.log" >&2; die "cannot download $1"; }
    deb=$(find "$debs" -name "${1}_*.deb" -print -quit)
  fi
  dpkg --fsys-tarfile "$deb" | tar -x -C "$unpacked"
}
libraries() { # programs: what the loader finds for them, or "not found"
  LD_LIBRARY_PATH=$unpacked/usr/lib/x86_64-linux-gnu:$unpacked/lib/x86_64-linux-gnu ldd "$@"
}
depends() { # packages: the libraries that they depend on
  apt-cache depends --no-recommends --no-suggests --no-conflicts --no-breaks \
    --no-replaces --no-enhances "$@" | sed -n 's/^ *Depends: *\(lib[^<>]*\)$/\1/p' | sort -u
}
# Fetches a package, and as many levels of what it depends on as its programs need.
programs() { # package, folder, programs
  local package=$1 to=$2 level=$1 each
  shift 2
  fetch "$package"
  for _ in 1 2 3; do
    libraries "${@/#/$unpacked}" | grep -q 'not found' || break
    # shellcheck disable=SC2086
    level=$(depends $level)
    for each in $level; do fetch "$each"; done
  done
  libraries "${@/#/$unpacked}" | grep 'not found' && die "$package: libraries are missing"
  for each in "$@"; do
    # Some are applets of busybox, too: links.
    cp --remove-destination "$unpacked$each" "$to/bin/"
  done
  libraries "${@/#/$unpacked}" | grep -o '/[^ :]*\.so[^ :]*' | sort -u | while read -r each; do
    case $each in
      */ld-linux*) mkdir -p "$to/lib64"; cp -L "$each" "$to/lib64/";;
      *) mkdir -p "$to/lib"; cp -L "$each" "$to/lib/";;
    esac
  done
}
for set in ${sets[@]+"${sets[@]}"}; do
  more=$work/$set
  cp -a "$root" "$more"
  case $set in
    io)
      programs iputils-ping "$more" /bin/ping
      mkdir -p "$out/io"
      cp "$unpacked/bin/ping" "$out/io/"
      for each in blocks streams; do
        cc -O2 -static -s -o "$out/io/$each" "$here/guest/$each.c" || die "no static C compiler"
        cp "$out/io/$each" "$more/bin/"
      done
      # What a guest finds on its disk, with the sums of it.
      mkdir -p "$work/files"
      for n in 1 2 3 4 5 6 7 8; do head -c $((n * 300000)) /dev/urandom >"$work/files/file.$n"; done
      (cd "$work/files" && sha256sum file.* >SUMS)
      command -v mke2fs >/dev/null || die "no mke2fs: install e2fsprogs"
      rm -f "$out/io/files.img"
      mke2fs -q -t ext4 -b 4096 -L siesta-files -d "$work/files" "$out/io/files.img" 48M >&2;;
    rt) programs rt-tests "$more" /usr/bin/cyclictest /usr/bin/hackbench;;
    stress) programs stress-ng "$more" /usr/bin/stress-ng;;
  esac
  archive "$more" "$out/root-$set.cpio"
done

# ---------------------------------------------------------------------- disk
if [ $disk = 1 ]; then
  command -v mke2fs >/dev/null || die "no mke2fs: install e2fsprogs"
  rm -f "$out/root.img.new"
  mke2fs -q -t ext4 -L siesta-root -d "$root" "$out/root.img.new" 32M >&2
  mv "$out/root.img.new" "$out/root.img"
fi
echo "$kernel"
