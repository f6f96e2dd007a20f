// SPDX-License-Identifier: LGPL-2.1-or-later
//! The subcommands.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use xensim::daemon::Daemon;
use xensim::toolstack::{Change, format_uuid, parse_uuid};
use xensim::{Access, Builder, Call, Config, Domain, Error, Fault, Host, Nodes, Reason, Role, host};

use crate::args::{Args, UsageError};
use crate::names;

/// Why a subcommand failed.
pub enum Failure {
    /// It was not called as it should be.
    Usage(UsageError),
    /// It could not be done.
    Host(Error),
}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Failure {
        Failure::Usage(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Host(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::Host(error.into())
    }
}

type Result<T> = std::result::Result<T, Failure>;

const DONE: Result<ExitCode> = Ok(ExitCode::SUCCESS);

/// Runs a subcommand.
pub fn run(command: &str, mut args: Args) -> Result<ExitCode> {
    match command {
        "up" => return up(args),
        "run" => return run_client(args),
        "keep" => return keep(args),
        "hosts" => return hosts(args),
        "sweep" => return sweep(args),
        _ => {}
    }
    let all = command == "down" && args.flag("--all");
    if all {
        return down_all(args);
    }
    let host = match args.value("--host")? {
        Some(dir) => Host::attach(Path::new(&dir))?,
        None => Host::from_env()?,
    };
    match command {
        "env" => {
            args.end()?;
            print_env(&host)?;
        }
        "down" => {
            args.end()?;
            host.down()?;
        }
        "create" => create(&host, args)?,
        "shutdown" => {
            let reason = match args.value("--reason")? {
                Some(reason) => Reason::parse(&reason).ok_or_else(|| format!("{reason}: not a reason"))?,
                None => Reason::POWEROFF,
            };
            let change =
                if args.flag("--and-die") { Change::ShutdownAndDying(reason) } else { Change::Shutdown(reason) };
            return change_domains(&host, args, change);
        }
        "suspend" => return change_domains(&host, args, Change::Shutdown(Reason::SUSPEND)),
        "kill" => return change_domains(&host, args, Change::Dying),
        "pause" => return change_domains(&host, args, Change::Pause),
        "unpause" => return change_domains(&host, args, Change::Unpause),
        "resume" => {
            for domid in names::domains(&host, &args.words()?)? {
                host.resume(domid)?;
            }
        }
        "soft-reset" => {
            for domid in names::domains(&host, &args.words()?)? {
                host.soft_reset(domid)?;
            }
        }
        "set-uuid" => {
            let domain = args.word("the domain")?;
            let uuid = args.word("the UUID")?;
            let uuid = parse_uuid(&uuid).ok_or_else(|| format!("{uuid}: not a UUID"))?;
            args.end()?;
            for domid in names::domains(&host, &[domain])? {
                host.set_uuid(domid, &uuid)?;
            }
        }
        "destroy" => {
            let keep_nodes = args.flag("--keep-nodes");
            let domids = names::domains(&host, &args.words()?)?;
            let destroyed = host.destroy_many(domids.iter().copied(), keep_nodes)?;
            return all_of(domids.len(), destroyed);
        }
        "list" => list(&host, args)?,
        "inject" => inject(&host, args)?,
        "counters" => counters(&host, args)?,
        "access" => {
            let access = match args.word("the kind of access")?.as_str() {
                "full" => Access::Full,
                "no-permission" => Access::NoPermission,
                "no-hypervisor" => Access::NoHypervisor,
                other => return Err(Failure::Usage(format!("{other}: not full, no-permission or no-hypervisor"))),
            };
            args.end()?;
            host.set_access(access);
        }
        "xenstored" => xenstored(&host, args)?,
        "virq" => {
            args.end()?;
            host.raise_virq()?;
        }
        "settle" => {
            args.end()?;
            host.settle()?;
        }
        other => return Err(Failure::Usage(format!("unknown command {other}"))),
    }
    DONE
}

fn builder(args: &mut Args) -> Result<Builder> {
    let mut builder = Host::builder();
    if let Some(name) = args.value("--name")? {
        builder = builder.name(name);
    }
    if let Some(root) = args.value("--root")? {
        builder = builder.root(root);
    }
    if args.flag("--no-xenstored") {
        builder = builder.without_xenstored();
    }
    Ok(builder)
}

fn up(mut args: Args) -> Result<ExitCode> {
    let env = args.flag("--env");
    let owner = args.parsed::<i32>("--owner")?;
    let host = match owner {
        Some(owner) => Host::attach(&start_keeper(owner, args)?)?,
        None => {
            let builder = builder(&mut args)?;
            args.end()?;
            builder.persistent().up()?
        }
    };
    if env {
        print_env(&host)?;
    } else {
        println!("{}", host.dir().display());
    }
    DONE
}

/// A process in the background that owns the host and waits for the end of whoever shall be its owner.
fn start_keeper(owner: i32, args: Args) -> Result<PathBuf> {
    let mut keeper = Command::new(std::env::current_exe()?);
    keeper.arg("keep").arg(owner.to_string()).args(args.into_options());
    // Out of the terminal's signals, and of its way: what it has to say, it says before it tells the directory.
    keeper.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let mut keeper = keeper.spawn()?;
    let mut dir = Vec::new();
    if let Some(stdout) = keeper.stdout.take() {
        BufReader::new(stdout).read_until(b'\n', &mut dir)?;
    }
    if dir.pop() != Some(b'\n') {
        // It has said why.
        std::process::exit(keeper.wait()?.code().unwrap_or(1));
    }
    Ok(OsStr::from_bytes(&dir).into())
}

fn keep(mut args: Args) -> Result<ExitCode> {
    let owner = args.word("the owner's process")?;
    let owner: i32 = owner.parse().map_err(|_| format!("{owner}: not a process"))?;
    let builder = builder(&mut args)?;
    args.end()?;
    let host = builder.up()?;
    // The descriptor before the word: who reads the word may count on it.
    let owner = host::Owner::new(owner)?;
    let mut stdout = std::io::stdout();
    stdout.write_all(host.dir().as_os_str().as_bytes())?;
    stdout.write_all(b"\n")?;
    stdout.flush()?;
    host::detach_output()?;
    host.keep_for(&owner)?;
    DONE
}

fn run_client(mut args: Args) -> Result<ExitCode> {
    let mut options = args.split_leading_options(&["--name", "--root"]);
    let builder = builder(&mut options)?;
    options.end()?;
    let command = args.command()?;
    let Some((program, words)) = command.split_first() else {
        return Err(Failure::Usage("a command to run is missing".into()));
    };
    let host = builder.up()?;
    let status = host.command(program).args(words).status();
    host.down()?;
    let status = status.map_err(|error| Failure::Usage(format!("{program}: {error}")))?;
    // As a shell reports it.
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

fn hosts(mut args: Args) -> Result<ExitCode> {
    let root = root(&mut args)?;
    args.end()?;
    for dir in host::all(&root) {
        println!("{}", dir.display());
    }
    DONE
}

fn sweep(mut args: Args) -> Result<ExitCode> {
    let root = root(&mut args)?;
    args.end()?;
    println!("{}", host::sweep(&root)?);
    DONE
}

fn down_all(mut args: Args) -> Result<ExitCode> {
    let root = root(&mut args)?;
    args.end()?;
    host::sweep(&root)?;
    for dir in host::all(&root) {
        Host::attach(&dir)?.down()?;
    }
    DONE
}

fn root(args: &mut Args) -> Result<PathBuf> {
    match args.value("--root")? {
        Some(root) => Ok(root.into()),
        None => Ok(host::default_root()?),
    }
}

/// Prints the environment for a shell's eval. What the shell has in LD_PRELOAD when it evaluates this stays there.
fn print_env(host: &Host) -> Result<()> {
    for (name, value) in host.env() {
        println!("export {name}={}", shell_quote(&value.to_string_lossy()));
    }
    Ok(())
}

fn shell_quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:+@%,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

fn create(host: &Host, mut args: Args) -> Result<()> {
    let count = args.parsed::<usize>("--count")?.unwrap_or(1);
    let mut config = Config::named("guest");
    config.domid = args.parsed("--domid")?;
    if let Some(uuid) = args.value("--uuid")? {
        config.handle = Some(parse_uuid(&uuid).ok_or_else(|| format!("{uuid}: not a UUID"))?);
    }
    config.memory_mib = args.parsed("--memory")?.unwrap_or(config.memory_mib);
    config.vcpus = args.parsed("--vcpus")?.unwrap_or(config.vcpus);
    config.hvm = args.flag("--hvm");
    config.paused = args.flag("--paused");
    config.introduce = !args.flag("--no-introduce");
    config.nodes = match args.value("--nodes")?.as_deref() {
        None | Some("all") => Nodes::All,
        Some("name") => Nodes::Name,
        Some("none") => Nodes::None,
        Some(other) => return Err(Failure::Usage(format!("{other}: not all, name or none"))),
    };
    if let Some(name) = args.optional_word() {
        config.name = name;
    }
    args.end()?;
    let mut out = String::new();
    for domid in host.create_many(count, &config)? {
        out.push_str(&format!("{domid}\n"));
    }
    print!("{out}");
    Ok(())
}

fn change_domains(host: &Host, args: Args, change: Change) -> Result<ExitCode> {
    let domids = names::domains(host, &args.words()?)?;
    let changed = host.change(domids.iter().copied(), change)?;
    all_of(domids.len(), changed)
}

/// It is not an error of the command's if a domain is not there or cannot change; a script may want to know.
fn all_of(wanted: usize, done: usize) -> Result<ExitCode> {
    if done < wanted {
        eprintln!("xensim: {} of {wanted} domains left as they were", wanted - done);
        return Ok(ExitCode::FAILURE);
    }
    DONE
}

fn list(host: &Host, args: Args) -> Result<()> {
    let words = args.words()?;
    let domains: Vec<Domain> = if words.is_empty() {
        host.domains()
    } else {
        names::domains(host, &words)?.into_iter().filter_map(|domid| host.domain(domid)).collect()
    };
    let mut out = format!("{:>5} {:<8} {:<10} {:<36} {}\n", "domid", "state", "reason", "uuid", "name");
    for domain in domains {
        let state = match domain.state {
            state if state.dying => "dying",
            state if state.shutdown.is_some() => "shutdown",
            state if state.paused => "paused",
            _ => "running",
        };
        let reason = domain.state.shutdown.map_or_else(|| "-".into(), |reason| reason.to_string());
        let uuid = format_uuid(&domain.handle);
        out.push_str(&format!("{:>5} {state:<8} {reason:<10} {uuid} {}\n", domain.domid, domain.name));
    }
    print!("{out}");
    Ok(())
}

fn inject(host: &Host, mut args: Args) -> Result<()> {
    if args.flag("--clear") {
        args.end()?;
        host.clear_faults();
        return Ok(());
    }
    let errno = match args.value("--errno")? {
        Some(errno) => names::errno(&errno)?,
        None => 0,
    };
    let times = args.parsed("--times")?;
    let after = args.parsed("--after")?.unwrap_or(0);
    let delay = Duration::from_millis(args.parsed("--delay")?.unwrap_or(0));
    let role = if args.flag("--xenstored") { Role::Xenstored } else { Role::Client };
    let calls = args.words()?.iter().map(|word| names::call(word)).collect::<std::result::Result<Vec<_>, _>>()?;
    if calls.is_empty() {
        return Err(Failure::Usage("a kind of hypercall is missing".into()));
    }
    if errno == 0 && delay.is_zero() {
        return Err(Failure::Usage("neither --errno nor --delay is there".into()));
    }
    for call in calls {
        host.inject(call, &Fault { errno, times, after, delay, role });
    }
    Ok(())
}

fn counters(host: &Host, mut args: Args) -> Result<()> {
    let reset = args.flag("--reset");
    args.end()?;
    let mut out = format!("{:<18} {:>10} {:>10}\n", "hypercall", "clients", "xenstored");
    for call in Call::ALL {
        let [clients, xenstored] = [Role::Client, Role::Xenstored].map(|role| host.table().count(role, call));
        out.push_str(&format!("{:<18} {clients:>10} {xenstored:>10}\n", call.name()));
    }
    print!("{out}");
    if reset {
        host.reset_counts();
    }
    Ok(())
}

fn xenstored(host: &Host, mut args: Args) -> Result<()> {
    let empty = args.flag("--empty");
    let verb = args.word("what xenstored shall do")?;
    args.end()?;
    let start = || if empty { host.start_empty_xenstored() } else { host.start_xenstored() };
    match verb.as_str() {
        "start" => start()?,
        "kill" => drop(host.kill_xenstored()?),
        "restart" => {
            host.kill_xenstored()?;
            start()?;
        }
        "pause" | "continue" => {
            if !host.pause_xenstored(verb == "pause")? {
                return Err(Failure::Usage("xenstored does not run".into()));
            }
        }
        "log" => print!("{}", std::fs::read_to_string(Daemon::log(host.dir()))?),
        other => return Err(Failure::Usage(format!("{other}: not start, kill, restart, pause, continue or log"))),
    }
    Ok(())
}
