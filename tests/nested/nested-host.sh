#!/bin/bash
# nested-host.sh - an emulated KVM host, so that stock Linux guests can be tested
# on machines whose own KVM cannot run them, or that have none.
#
# Boots a Debian kernel with kvm-amd under pure emulation (QEMU TCG emulates
# AMD SVM and nested paging), shows it this machine's files read-only under the
# same paths, runs a command in it as root, streams its output, and ends with
# its exit status. It is KVM as on hardware, for counts and orders of events;
# times inside mean nothing. docs/linux-guests.md says what it is good for.
#
#   nested-host.sh [options] -- COMMAND [ARG...]
#   nested-host.sh [options] -s 'shell script text'
#   nested-host.sh -K             fetch the kernel, print its folder, nothing else
#
#   -c N      vCPUs of the emulated host (default 2)
#   -m MIB    its memory (default 4096)
#   -t SEC    wall-clock limit (default 300); exceeded: exit 124
#   -f KIND   how it sees this machine's files:
#               virtiofs  (default) / read-only, tmpfs overlay above, same paths
#               9p        same, over 9p; needs -k full
#               pack      nothing shared: only DIRs given with -d, copied into
#                         the initramfs (plus busybox); no daemon, no sharing
#   -w DIR    share DIR read-write at the same path (virtiofs, 9p); repeatable
#   -d DIR    (pack) copy DIR to the same path; repeatable
#   -x FILE   (pack) copy an executable with the shared libraries it needs
#   -C DIR    working directory inside (default: the current one)
#   -e VAR    pass this environment variable on; repeatable (VAR or VAR=VALUE)
#   -k KIND   cloud (default, linux-image-*-cloud-amd64) or full
#   -M TYPE   QEMU machine type (default q35)
#   -P CPU    QEMU CPU model (default EPYC-Rome less what TCG lacks)
#   -A ACCEL  QEMU accelerator (default tcg,thread=multi)
#   -i SHIFT  -icount shift=SHIFT,sleep=off (one TCG thread, virtual time)
#   -a STR    append to the emulated host's kernel command line
#   -p STR    parameters for kvm.ko ('halt_poll_ns=0')
#   -q STR    extra QEMU arguments (split on blanks)
#   -T LIST   trace events, e.g. 'kvm:*,timer:hrtimer_expire_entry';
#             the trace is written to -o FILE on this machine after the command
#   -o FILE   where the trace goes (default ./nested-host.trace)
#   -b KB     trace buffer per CPU in KiB (default 20480)
#   -D FILE   write the emulated host's dmesg here after the command
#   -L FILE   keep its serial console here
#   -H        without kvm-hold and with all CPUs online from the start
#   -v        kernel messages not quiet; timing summary on stderr
#
# Standard output and error of COMMAND are streamed; its exit status is ours.
# 124: time limit. 125: the emulated host never reported a status.
# Only with -A tcg,thread=multi (the default) are nested Linux guests reliable:
# with one TCG thread (also -i) QEMU 7.2 delivers some injected interrupts twice.
# Needs (Debian): qemu-system-x86 qemu-system-common busybox-static cpio
# xz-utils zstd gcc; root for virtiofsd. The kernel package and the initramfs are
# kept in $NESTED_HOST_DIR (default: target/nested-host of this repository). The
# kernel is NESTED_HOST_KVER, or the nearest that Debian still has.
set -u
here=$(cd "$(dirname "$0")" && pwd)
S=${NESTED_HOST_DIR:-$here/../../target/nested-host}
KVER=${NESTED_HOST_KVER:-6.12.117+deb12}

ncpu=2 mem=4096 limit=300 fs=virtiofs cwd=$PWD kind=cloud machine=q35
cpu= accel=tcg,thread=multi fetch=0 icount= append= kvmpar= qargs= trace= script=
hold=1 traceout=$PWD/nested-host.trace tracekb=20480 dmesgout= consout= verbose=0
rw=() packs=() exes=() envs=()
while getopts 'c:m:t:f:w:d:x:C:e:k:M:P:A:i:a:p:q:T:o:b:D:L:s:vHK' o; do
  case $o in
    c) ncpu=$OPTARG;; m) mem=$OPTARG;; t) limit=$OPTARG;; f) fs=$OPTARG;;
    w) rw+=("$(readlink -f "$OPTARG")");; d) packs+=("$(readlink -f "$OPTARG")");;
    x) exes+=("$(command -v "$OPTARG")");; C) cwd=$OPTARG;; e) envs+=("$OPTARG");; k) kind=$OPTARG;; M) machine=$OPTARG;;
    P) cpu=$OPTARG;; A) accel=$OPTARG;; i) icount=$OPTARG;; a) append=$OPTARG;;
    p) kvmpar=$OPTARG;; q) qargs=$OPTARG;; T) trace=$OPTARG;; o) traceout=$OPTARG;;
    b) tracekb=$OPTARG;; D) dmesgout=$OPTARG;; L) consout=$OPTARG;; s) script=$OPTARG;;
    K) fetch=1;; v) verbose=1;; H) hold=0;; *) sed -n '2,/^set -u/{/^#/p}' "$0" >&2; exit 2;;
  esac
done
shift $((OPTIND - 1))
[ $fetch = 1 ] || [ -n "$script" ] || [ $# -gt 0 ] || { sed -n '2,/^set -u/{/^#/p}' "$0" >&2; exit 2; }
[ "$fs" = 9p ] && kind=full
case $kind in cloud) kv=$KVER-cloud-amd64;; full) kv=$KVER-amd64;; *) echo "bad -k" >&2; exit 2;; esac
# what TCG of QEMU 7.2 has of EPYC-Rome (it includes svm, npt): no warnings.
# And no XSAVE, hence no AVX: TCG lacks the XSETBV intercept, so kvm-amd would
# never learn the nested guest's XCR0.
: "${cpu:=EPYC-Rome,-rdseed,-sha-ni,-rdpid,-fxsr-opt,-misalignsse,-3dnowprefetch,-osvw,-topoext,-perfctr-core,-clzero,-xsaveerptr,-wbnoinvd,-ibpb,-amd-stibp,-nrip-save,-xsave,-xsavec,-xsaves,-xsaveopt,-xgetbv1,-avx,-avx2,-fma,-f16c}"

die() { echo "nested-host: $*" >&2; exit 125; }
now() { date +%s.%N; }
t_start=$(now)

# ---------------------------------------------------------------- 1. kernel
mkdir -p "$S/cache" || exit 125
S=$(readlink -f "$S")
K=$S/cache/$kv
exec 9>"$S/cache/.lock"; flock 9
if [ ! -e "$K/.ok" ]; then
  apt-cache show "linux-image-$kv" >/dev/null 2>&1 || { [ "$(id -u)" = 0 ] && apt-get update -q; } >/dev/null 2>&1
  if ! apt-cache show "linux-image-$kv" >/dev/null 2>&1; then
    # The newest that the package lists have of this kind and this series, else
    # of this kind.
    of_kind=$(apt-cache pkgnames linux-image- | sed 's/^linux-image-//' | grep -E '^[0-9].*[0-9]'"${kv#"$KVER"}"'$' | sort -V)
    kv=$(grep "^${KVER%.*}\." <<<"$of_kind" | tail -n 1); : "${kv:=$(tail -n 1 <<<"$of_kind")}"
    [ -n "$kv" ] || die "no linux-image-*${kind} package: this needs Debian's package lists"
    K=$S/cache/$kv
  fi
fi
if [ ! -e "$K/.ok" ]; then
  rm -rf "$K.tmp"; mkdir -p "$K.tmp/deb"
  ( cd "$K.tmp/deb" && apt-get download "linux-image-$kv" ) >"$K.tmp/apt.log" 2>&1 ||
    { cat "$K.tmp/apt.log" >&2; die "cannot download linux-image-$kv"; }
  dpkg --fsys-tarfile "$K.tmp"/deb/*.deb | tar -x -C "$K.tmp" ./boot ./lib/modules || die "cannot unpack"
  cp "$K.tmp/boot/vmlinuz-$kv" "$K.tmp/vmlinuz"
  # the ELF image inside the bzImage: booted through PVH it needs no
  # decompression under emulation (saves about 2 s)
  read -r setup < <(od -An -tu1 -j $((0x1f1)) -N1 "$K.tmp/vmlinuz")
  read -r poff plen < <(od -An -tu4 -j $((0x248)) -N8 "$K.tmp/vmlinuz")
  tail -c +$(((setup + 1) * 512 + poff + 1)) "$K.tmp/vmlinuz" | head -c $((plen - 4)) |
    zstd -dqc >"$K.tmp/vmlinux" || die "cannot extract vmlinux"
  rm -rf "$K.tmp/deb" "$K"; mv "$K.tmp" "$K"; : >"$K/.ok"
fi

[ $fetch = 0 ] || { echo "$K"; exit 0; }

# ------------------------------------------------------------- 2. initramfs
base=$K/initramfs.cpio
if [ ! -e "$base" ] || [ "$0" -nt "$base" ] || [ "$here/kvm-hold.c" -nt "$base" ]; then
  I=$(mktemp -d "$S/cache/ird.XXXXXX") || exit 125
  mkdir -p "$I"/{bin,dev,proc,sys,mod,lower,new,tmp,etc}
  bb=$(command -v busybox) || die "no busybox"
  cp "$bb" "$I/bin/busybox"
  cc -O1 -static -s -o "$I/bin/kvm-hold" "$here/kvm-hold.c" || die "no static C compiler for kvm-hold"
  m=$K/lib/modules/$kv/kernel
  # load order; what a kernel has built in is just not there
  list="virt/lib/irqbypass drivers/crypto/ccp/ccp arch/x86/kvm/kvm arch/x86/kvm/kvm-amd
        fs/overlayfs/overlay fs/netfs/netfs net/9p/9pnet net/9p/9pnet_virtio fs/9p/9p
        net/core/failover drivers/block/virtio_blk"
  : >"$I/mod/order"
  for x in $list; do
    [ -e "$m/$x.ko.xz" ] || continue
    xz -dc "$m/$x.ko.xz" >"$I/mod/${x##*/}.ko"; echo "${x##*/}" >>"$I/mod/order"
  done
  cat >"$I/init" <<'INIT'
#!/bin/busybox sh
B=/bin/busybox
$B --install -s /bin; export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
up() { read -r u _ </proc/uptime; echo "$u"; }
t_init=$(up)
. /run.conf
for m in $(cat /mod/order); do
  case $m in
    9p*|netfs) [ "$FS" = 9p ] || continue;;
    virtio_blk) continue;;
    kvm) insmod /mod/kvm.ko $KVMPAR; continue;;
  esac
  insmod /mod/$m.ko
done
port() { for p in /sys/class/virtio-ports/*; do [ "$(cat $p/name 2>/dev/null)" = "$1" ] && echo /dev/${p##*/} && return; done; }
n=0; while [ -z "$(port ctl)" ] && [ $n -lt 200 ]; do usleep 20000; n=$((n+1)); done
OUT=$(port out) ERR=$(port err) CTL=$(port ctl) AUX=$(port aux) DMS=$(port dmsg)
exec 7>$CTL
fail() { echo "fail $*" >&7; echo "nested-host: $*" >/dev/console; poweroff -f; }
N=/new
case $FS in
  pack) N=;;
  *)
    case $FS in
      virtiofs) mount -t virtiofs -o ro root /lower || fail "mount root";;
      9p) mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=1048576,cache=loose root /lower || fail "mount root";;
    esac
    mount -t tmpfs -o size=75% tmp /tmp; mkdir /tmp/u /tmp/w
    mount -t overlay -o lowerdir=/lower,upperdir=/tmp/u,workdir=/tmp/w,metacopy=off ovl /new || fail "overlay"
    mkdir -p /new/proc /new/sys /new/dev
    mount -t proc proc /new/proc; mount -t sysfs sys /new/sys; mount -t devtmpfs dev /new/dev
    mkdir -p $N/dev/shm; mount -t tmpfs t $N/dev/shm; chmod 1777 $N/dev/shm
    i=0; for d in $RW; do
      mkdir -p "$N$d"
      case $FS in
        virtiofs) mount -t virtiofs rw$i "$N$d";;
        9p) mount -t 9p -o trans=virtio,version=9p2000.L,msize=1048576,cache=none rw$i "$N$d";;
      esac || fail "mount $d"
      i=$((i+1))
    done;;
esac
[ "$FS" = pack ] && mkdir -p /run /dev/shm && mount -t tmpfs t /dev/shm
mkdir -p $N/dev/pts; mount -t devpts devpts $N/dev/pts 2>/dev/null
[ -e $N/dev/fd ] || ln -s /proc/self/fd $N/dev/fd
[ -e $N/dev/stdin ] || { ln -s fd/0 $N/dev/stdin; ln -s fd/1 $N/dev/stdout; ln -s fd/2 $N/dev/stderr; }
T=$N/sys/kernel/tracing
mount -t tracefs trace $T 2>/dev/null; mount -t debugfs debug $N/sys/kernel/debug 2>/dev/null
ifconfig lo 127.0.0.1 up
hostname nested-host
cp /cmd.sh $N/run/nested-host-cmd; chmod +x $N/run/nested-host-cmd
mkfifo /fo /fe
cat /fo >$OUT & c1=$!
cat /fe >$ERR & c2=$!
if [ -n "$TRACE" ]; then
  echo 0 >$T/tracing_on; echo "$TRACEKB" >$T/buffer_size_kb; echo nop >$T/current_tracer
  for e in $(echo "$TRACE" | tr ',' ' '); do echo "$e" >>$T/set_event || echo "no event $e" >/fe; done
  echo 1 >$T/tracing_on
fi
# All live patching of kernel code that we can foresee is done by now, on one
# CPU; see kvm-hold.c. Only then the others.
if [ "$HOLD" = 1 ]; then
  kvm-hold >/hold.out 2>&1 & hold=$!
  n=0; while [ ! -s /hold.out ] && [ $n -lt 250 ]; do usleep 20000; n=$((n+1)); done
  grep -q ok /hold.out || fail "kvm-hold: $(cat /hold.out)"
fi
for c in /sys/devices/system/cpu/cpu[0-9]*/online; do [ ! -e $c ] || [ "$(cat $c)" = 1 ] || echo 1 >$c || fail "cannot online $c"; done
t_cmd=$(up)
if [ -n "$N" ]; then chroot $N /run/nested-host-cmd </dev/null >/fo 2>/fe 7>&-; else /run/nested-host-cmd </dev/null >/fo 2>/fe 7>&-; fi
rc=$?
t_end=$(up)
[ -n "$TRACE" ] && { echo 0 >$T/tracing_on; cat $T/trace >$AUX; }
[ -n "$DMS" ] && dmesg >$DMS
n=0; while { kill -0 $c1 || kill -0 $c2; } 2>/dev/null && [ $n -lt 50 ]; do usleep 20000; n=$((n+1)); done
for d in $RW; do umount "$N$d" 2>/dev/null; done
echo "times $t_init $t_cmd $t_end" >&7
echo "rc $rc" >&7
exec 7>&-
poweroff -f
INIT
  chmod +x "$I/init"
  ( cd "$I" && find . | cpio -o -H newc -R 0:0 --quiet ) >"$base.tmp" || die "cpio"
  mv "$base.tmp" "$base"; rm -rf "$I"
fi
flock -u 9; exec 9>&-

# ------------------------------------------------------------- 3. this run
R=$(mktemp -d "${TMPDIR:-/tmp}/nested-host.XXXXXX") || exit 125
pids=()
cleanup() { for p in "${pids[@]:-}"; do [ -n "$p" ] && kill "$p" 2>/dev/null; done; rm -rf "$R"; }
trap cleanup EXIT
trap 'exit 130' INT; trap 'exit 143' TERM

mkdir "$R/i"
{ printf 'HOLD=%q FS=%q KVMPAR=%q TRACE=%q TRACEKB=%q RW=%q\n' "$hold" "$fs" "$kvmpar" "$trace" "$tracekb" "${rw[*]:-}"; } >"$R/i/run.conf"
{
  [ "$fs" = pack ] && echo '#!/bin/busybox sh' || echo '#!/bin/bash'
  printf 'export PATH=%q HOME=%q NESTED_HOST=1\n' "$([ "$fs" = pack ] && echo /bin:/sbin:/usr/bin:/usr/sbin:/usr/local/bin || echo "$PATH")" "${HOME:-/root}"
  for e in "${envs[@]:-}"; do
    case $e in '') ;; *=*) printf 'export %s=%q\n' "${e%%=*}" "${e#*=}";; *) printf 'export %s=%q\n' "$e" "${!e-}";; esac
  done
  printf 'cd %q || exit 126\n' "$cwd"
  if [ -n "$script" ]; then printf '%s\n' "$script"; else printf 'exec'; printf ' %q' "$@"; echo; fi
} >"$R/i/cmd.sh"
if [ "$fs" = pack ]; then
  for d in "${packs[@]:-}"; do [ -n "$d" ] && mkdir -p "$R/i$(dirname "$d")" && cp -aL "$d" "$R/i$(dirname "$d")/"; done
  for x in "${exes[@]:-}"; do
    [ -n "$x" ] || continue
    { echo "$x"; ldd "$x" 2>/dev/null | grep -o '/[^ ]*'; } | while read -r l; do
      mkdir -p "$R/i$(dirname "$l")"; [ -e "$R/i$l" ] || cp -L "$l" "$R/i$l"
    done
  done
fi
find "$R/i" -exec touch -h -d @0 {} +
( cd "$R/i" && find . | LC_ALL=C sort | cpio -o --reproducible -H newc -R 0:0 --quiet ) >"$R/x.cpio" || die cpio
cat "$base" "$R/x.cpio" >"$R/initrd"

q=(qemu-system-x86_64 -M "$machine,memory-backend=mem" -cpu "$cpu" -smp "$ncpu" -m "$mem"
   -object "memory-backend-memfd,id=mem,size=${mem}M,share=on"
   -nodefaults -no-user-config -display none -no-reboot -monitor none
   -kernel "$K/vmlinux" -initrd "$R/initrd"
   -serial "file:$R/console"
   -device virtio-serial-pci,max_ports=8,ioeventfd=off
   -chardev "file,id=out,path=$R/out" -device virtserialport,nr=1,chardev=out,name=out
   -chardev "file,id=err,path=$R/err" -device virtserialport,nr=2,chardev=err,name=err
   -chardev "file,id=ctl,path=$R/ctl" -device virtserialport,nr=3,chardev=ctl,name=ctl)
[ -n "$trace" ] && q+=(-chardev "file,id=aux,path=$traceout" -device virtserialport,nr=4,chardev=aux,name=aux)
[ -n "$dmesgout" ] && q+=(-chardev "file,id=dmsg,path=$dmesgout" -device virtserialport,nr=5,chardev=dmsg,name=dmsg)
# Instruction-counted virtual time: with nothing coming from outside (-f pack,
# fixed date and seed) two runs are identical to the nanosecond.
if [ -n "$icount" ]; then
  q+=(-accel tcg,thread=single -icount "shift=$icount,sleep=off" -seed 1 -rtc base=2026-01-01,clock=vm)
else
  q+=(-accel "$accel" -device virtio-rng-pci)
fi

virtiofsd=
for v in /usr/lib/qemu/virtiofsd /usr/libexec/virtiofsd; do [ -x $v ] && { virtiofsd=$v; break; }; done
share() { # tag dir readonly
  case $fs in
    virtiofs)
      [ -n "$virtiofsd" ] || die "no virtiofsd: install qemu-system-common"
      local o="source=$2,cache=always,no_posix_lock,xattr,sandbox=chroot"
      [ "$3" = ro ] || o="source=$2,cache=auto,xattr,sandbox=chroot"
      "$virtiofsd" --socket-path="$R/$1.sock" -o "$o" -f >"$R/$1.log" 2>&1 & pids+=($!)
      local n=0; while [ ! -S "$R/$1.sock" ] && [ $n -lt 100 ]; do sleep 0.05; n=$((n + 1)); done
      [ -S "$R/$1.sock" ] || { cat "$R/$1.log" >&2; die "virtiofsd for $2 did not start"; }
      q+=(-chardev "socket,id=c$1,path=$R/$1.sock" -device "vhost-user-fs-pci,chardev=c$1,tag=$1,queue-size=256");;
    9p)
      local ro=; [ "$3" = ro ] && ro=,readonly=on
      q+=(-fsdev "local,id=f$1,path=$2,security_model=none,multidevs=remap$ro" -device "virtio-9p-pci,fsdev=f$1,mount_tag=$1");;
  esac
}
case $fs in
  virtiofs|9p) share root / ro; i=0; for d in "${rw[@]:-}"; do [ -n "$d" ] && share rw$i "$d" rw; i=$((i + 1)); done;;
  pack) ;;
  *) die "bad -f $fs";;
esac

# lpj: without it each CPU brought up late calibrates for 2 s; this is 4 GHz, so
# that no delay gets too short
cmdline="console=ttyS0 nokaslr mitigations=off tsc=reliable no_timer_check lpj=16000000 panic=-1 net.ifnames=0 rdinit=/init"
cmdline="$cmdline audit=0 apparmor=0 cryptomgr.notests=1"
[ $hold = 1 ] && cmdline="$cmdline maxcpus=1 noreplace-smp"
[ $verbose = 1 ] || cmdline="$cmdline quiet loglevel=4"
q+=(-append "$cmdline $append")
# shellcheck disable=SC2206
q+=($qargs)

# QEMU's file chardev wants a path; a fifo keeps our own descriptors (offset,
# append mode) out of its hands
mkfifo "$R/out" "$R/err"
cat "$R/out" & cats=($!)
cat "$R/err" >&2 & cats+=($!)

t_qemu=$(now)
timeout -k 5 "$limit" "${q[@]}" </dev/null & qp=$!
pids+=($qp)
wait $qp; qrc=$?
[ $qrc = 0 ] && wait "${cats[@]}" || kill "${cats[@]}" 2>/dev/null
t_end=$(now)

[ -n "$consout" ] && cp "$R/console" "$consout"
if [ $verbose = 1 ] && [ -e "$R/ctl" ]; then
  read -r _ a b c < <(grep ^times "$R/ctl") || true
  awk -v s="$t_start" -v q="$t_qemu" -v e="$t_end" -v a="${a:-0}" -v b="${b:-0}" -v c="${c:-0}" 'BEGIN{
    printf "nested-host: wall %.2f s (prepare %.2f, qemu %.2f); inside: init at %.2f, command at %.2f, ended at %.2f\n", e-s, q-s, e-q, a, b, c}' >&2
fi
[ $qrc = 124 ] || [ $qrc = 137 ] && { tail -n 5 "$R/console" >&2; echo "nested-host: time limit of $limit s" >&2; exit 124; }
rc=$(sed -n 's/^rc //p' "$R/ctl" 2>/dev/null)
[ -n "$rc" ] && exit "$rc"
tail -n 20 "$R/console" >&2; cat "$R/ctl" >&2 2>/dev/null
die "no status from the emulated host (qemu exit $qrc)"
