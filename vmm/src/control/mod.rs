//! VMs that come and go in a running process, on request.
//!
//! [`protocol`] says what can be asked and what is answered, [`server`] carries lines to and from
//! those who ask, [`operator`] does what they ask to a fleet, [`spec`] is a VM as it is described in a
//! request or a configuration file, [`stats`] and [`survey`] are what a process tells about itself and how
//! it is found out, [`client`] asks. One thread, the process's main one, does all
//! of it: a request changes a fleet that nobody else changes. Must not know how vCPUs run.
//!
//! | threat | answer |
//! |---|---|
//! | a line without an end | [`server::LONGEST_LINE`]; the client is told and dropped |
//! | no request at all | the client waits; when there are [`server::MOST_CLIENTS`], the one that was silent longest makes room |
//! | answers that nobody reads | no more requests are taken from that client; what waits is bounded by one answer |
//! | anybody on the host | the socket is the user's alone (mode 0600) |

pub mod client;
pub mod operator;
pub mod protocol;
pub mod server;
pub mod spec;
pub mod stats;
pub mod survey;
