// SPDX-License-Identifier: LGPL-2.1-or-later
//! Whether there is Xen here: the hypervisor, and xenstored.

use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use xlevent::evgen::targets::MANY;
use xlevent::xen::hypervisor::{self, Hypervisor};
use xlevent::xen::store::{Store, daemon_socket};

use super::{Finding, Show, limit};
use crate::exit::Result;
use crate::watch::describe;

const DEVICE: &str = "/dev/xen/privcmd";
const RUN_AS_ROOT: &str = "run this as root, as programs that use libxl are";

/// Whether something is amiss.
pub fn findings(show: Show<'_>) -> Result<bool> {
    let mut amiss = false;
    amiss |= show(vec![limit::check("Xen", kernel).unwrap_or_else(|finding| *finding)])?;
    amiss |= show(vec![limit::check("privcmd", device).unwrap_or_else(|finding| *finding)])?;
    amiss |= show(limit::check("hypercalls", hypercalls).unwrap_or_else(|finding| vec![*finding]))?;
    Ok(show(xenstored())? || amiss)
}

fn kernel() -> Finding {
    let line = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let version = |name: &str| line(&format!("/sys/hypervisor/version/{name}"));
    let what = "Xen";
    if line("/proc/xen/capabilities").is_some_and(|able| !able.split(',').any(|able| able == "control_d")) {
        let advice = "domains are managed in the control domain: run it there";
        return Finding::bad(what, "this is a guest of a Xen host, not its control domain", advice);
    }
    if line("/sys/hypervisor/type").as_deref() != Some("xen") {
        let text = "the kernel does not say that it runs on Xen (/sys/hypervisor/type)";
        return match fs::exists(DEVICE) {
            // A container, or a simulated host.
            Ok(true) => Finding::warn(what, text, "what follows shows whether it can be used all the same"),
            _ => {
                let advice =
                    "install Xen (on Debian: the package xen-system-amd64) and boot the machine's entry with Xen";
                Finding::bad(what, text, advice)
            }
        };
    }
    let part = |name| version(name).unwrap_or_default();
    Finding::ok(what, format_args!("release {}.{}{}", part("major"), part("minor"), part("extra")))
}

fn device() -> Finding {
    match File::options().read(true).write(true).open(DEVICE) {
        Ok(_) => Finding::ok("privcmd", format_args!("{DEVICE} can be opened")),
        Err(error) => {
            let advice = match error.kind() {
                io::ErrorKind::PermissionDenied => RUN_AS_ROOT,
                io::ErrorKind::NotFound => "on a Xen host, load the driver: modprobe xen-privcmd",
                _ => "the kernel's log may say why",
            };
            Finding::bad("privcmd", format_args!("{DEVICE}: {error}"), advice)
        }
    }
}

fn hypercalls() -> Vec<Finding> {
    let Some(library) = hypervisor::library() else {
        let advice = "install it, of the hypervisor's release (on Debian: a package libxenmisc4.*)";
        return vec![Finding::bad("libxenctrl", "there is no libxenctrl.so.4.*", advice)];
    };
    let what = "hypercalls";
    let (hypervisor, lines) = Hypervisor::open();
    let asked = match hypervisor.and_then(|mut hypervisor| hypervisor.domains()) {
        Ok(domains) => Finding::ok(what, format_args!("answered; domains: {}", domains.len())),
        Err(error) => {
            let said = lines.iter().map(|line| format!(" ({})", line.text)).collect::<Vec<_>>().concat();
            let advice = "libxenctrl must be of the hypervisor's release, and this the control domain";
            Finding::bad(what, format_args!("{}{said}", describe(&error)), advice)
        }
    };
    vec![Finding::ok("libxenctrl", library.display()), asked]
}

fn xenstored() -> Vec<Finding> {
    let what = "xenstored";
    // One that hangs takes no connections either, once enough others wait for it.
    let deadline = Instant::now() + limit::LIMIT;
    let left = || deadline.saturating_duration_since(Instant::now());
    let hangs = |who: &str| {
        let text = format!("{who} doesn't answer within {} s", limit::LIMIT.as_secs());
        vec![Finding::bad(what, text, "see its log; if it has to be restarted, programs on xlevent will survive it")]
    };
    let socket = daemon_socket();
    let reached = socket.as_ref().map_or_else(String::new, |socket| format!("the daemon at {}", socket.display()));
    let who = match limit::started(|| connect(socket)).map(|who| who.recv_timeout(left())) {
        Ok(Ok(Ok(who))) => who,
        Ok(Ok(Err(finding))) => return vec![*finding],
        Ok(Err(_)) => return hangs(&reached),
        Err(why) => return vec![Finding::bad(what, format_args!("no thread to ask it: {why}"), "see ulimit -u")],
    };
    let ask = || {
        let connection = Store::open()?.connection();
        connection.read(c"/local/domain/0/name")?;
        Ok::<bool, xlevent::error::Error>(connection.watches_single_domains())
    };
    match limit::started(ask).map(|answer| answer.recv_timeout(left())) {
        Ok(Ok(Ok(single))) => {
            let watches = if single {
                format!("of single domains, where a program follows {MANY} at most; else one for all, and a scan")
            } else {
                "one for all domains, and a scan when it fires: this xenstored has none of single domains".to_owned()
            };
            vec![Finding::ok(what, who), Finding::ok("watches", watches)]
        }
        Ok(Ok(Err(error))) => {
            vec![Finding::bad(what, format_args!("{who}: {}", describe(&error)), "its log may say why")]
        }
        Ok(Err(_)) => hangs(&who),
        Err(why) => vec![Finding::bad(what, format_args!("no thread to ask it: {why}"), "see ulimit -u")],
    }
}

/// Who answers, if there is anybody.
fn connect(socket: Option<PathBuf>) -> std::result::Result<String, Box<Finding>> {
    match socket.filter(|path| path.exists() || !Path::new("/dev/xen/xenbus").exists()) {
        // A xenstored in a domain of its own.
        None => Ok("reached through the kernel (xenbus)".to_owned()),
        Some(socket) => match UnixStream::connect(&socket) {
            Ok(stream) => Ok(format!("{} at {}", peer(&stream), socket.display())),
            Err(error) => {
                let advice = match error.kind() {
                    io::ErrorKind::PermissionDenied => RUN_AS_ROOT,
                    _ => "start it (on Debian: systemctl start xen), or see its log in /var/log/xen",
                };
                Err(Box::new(Finding::bad("xenstored", format_args!("{}: {error}", socket.display()), advice)))
            }
        },
    }
}

/// Who is at the other end.
fn peer(stream: &UnixStream) -> String {
    let Ok(peer) = getsockopt(stream, PeerCredentials) else { return "a daemon".to_owned() };
    let program: Option<PathBuf> = fs::read_link(format!("/proc/{}/exe", peer.pid())).ok();
    match program {
        Some(program) => format!("{}, process {},", program.display(), peer.pid()),
        None => format!("process {}", peer.pid()),
    }
}
