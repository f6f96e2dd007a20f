// SPDX-License-Identifier: LGPL-2.1-or-later
//! What children leave running: it lives on, and costs us nothing.

use super::*;

/// Writes megabytes to both of its outputs and to the file $0 how far it has come, for ever; ends when it fails to write.
const WORK: &str =
    r#"i=0; while :; do i=$((i+1)); printf "%8000s\n" x && printf "%8000s\n" x >&2 || exit; echo $i >$0; done"#;

fn daemon() -> String {
    format!("({WORK}) & echo $! >$0.pid")
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Ended with the test's process, if not before.
struct Daemon {
    pid: pid_t,
    progress: std::path::PathBuf,
}

impl Daemon {
    fn file(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("xlevent-left-{}-{name}", std::process::id()))
    }

    fn command(name: &str, script: &str) -> Command {
        sh(script).args([Self::file(name)])
    }

    /// Whose number its script has left in a file; `None` if it hasn't yet.
    fn started(name: &str) -> Option<Self> {
        let file = Self::file(&format!("{name}.pid"));
        let pid = std::fs::read_to_string(&file).ok()?.strip_suffix('\n')?.parse().unwrap();
        std::fs::remove_file(file).unwrap();
        Some(Daemon { pid, progress: Self::file(name) })
    }

    fn rounds(&self) -> u64 {
        let text = std::fs::read_to_string(&self.progress).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    /// It lives, and gets rid of more than any pipe holds.
    fn goes_on(&self) {
        let (begin, end) = (self.rounds(), now() + PATIENCE);
        while self.rounds() < begin + 100 {
            assert!(lives(self.pid) && now() < end, "it stands at {}", self.rounds());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // SAFETY: the process that the child has started.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        let _ = std::fs::remove_file(&self.progress);
    }
}

fn has_children() -> bool {
    // SAFETY: no memory is involved.
    unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG | libc::__WALL) != -1 }
}

tests! {
    fn a_daemon_that_keeps_the_outputs_lives_and_costs_nothing() {
        let before = descriptors();
        let (context, log) = context();
        context.fd().unwrap();
        let with_context = descriptors();
        let outcome = run(&context, &Daemon::command("one", &daemon()));
        assert_eq!(outcome.end, End::Exited(0));
        let daemon = Daemon::started("one").unwrap();
        daemon.goes_on();
        assert_eq!(descriptors(), with_context);
        assert!(!has_children());
        // Nothing of it is to be dealt with.
        drive_until(&context, || !is_readable(&context));
        context.close();
        drop(context);
        assert_eq!(descriptors(), before);
        daemon.goes_on();
        assert_eq!(log.take(), []);
    }

    fn many_daemons_cost_no_descriptors_and_no_children() {
        let (context, _log) = context();
        context.fd().unwrap();
        let before = descriptors();
        let name = |number: usize| format!("many-{number}");
        let script = "(i=0; while :; do i=$((i+1)); echo $i && echo $i >&2 || exit; echo $i >$0; sleep 0.1; done) & echo $! >$0.pid";
        let heard: Vec<_> = (0..50).map(|number| start(&context, &Daemon::command(&name(number), script)).1).collect();
        let ends: Vec<_> = heard.iter().map(|hear| await_outcome(&context, hear).end).collect();
        let daemons: Vec<_> = (0..50).map(|number| Daemon::started(&name(number)).unwrap()).collect();
        assert_eq!(ends, [End::Exited(0); 50]);
        assert_eq!(descriptors(), before);
        assert!(!has_children());
        let rounds: Vec<_> = daemons.iter().map(Daemon::rounds).collect();
        drive_until(&context, || daemons.iter().zip(&rounds).all(|(daemon, before)| daemon.rounds() > before + 2));
    }

    fn who_reads_for_a_daemon_ends_with_it_and_has_nothing_of_ours() {
        let (context, _log) = context();
        run(&context, &Daemon::command("reader", &daemon()));
        let daemon = Daemon::started("reader").unwrap();
        let readers = || -> Vec<pid_t> {
            let link = |pid: pid_t, fd: i32| std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok();
            let pipes = [link(daemon.pid, 1), link(daemon.pid, 2)];
            let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
            all.filter(|pid| *pid != daemon.pid && link(*pid, 0).is_some_and(|link| pipes.contains(&Some(link)))).collect()
        };
        drive_until(&context, || readers().iter().filter(|pid| lives_as(**pid, "cat")).count() == 2);
        let readers = readers();
        for pid in &readers {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            assert!(!status.contains(&format!("PPid:\t{}\n", std::process::id())));
            assert_eq!(std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(), 3);
            // SAFETY: no memory is involved.
            assert_eq!(unsafe { libc::getsid(*pid) }, *pid);
        }
        drop(daemon);
        drive_until(&context, || readers.iter().all(|pid| !lives(*pid)));
    }

    fn a_daemon_outlives_the_closing_of_the_context_that_ends_its_script() {
        let (context, _log) = context();
        // Not in the script's group, which is killed.
        let script = format!("setsid sh -c '{WORK}' $0 & echo $! >$0.pid; wait");
        let (_, hear) = start(&context, &Daemon::command("closed", &script));
        let mut daemon = None;
        drive_until(&context, || {
            daemon = daemon.take().or_else(|| Daemon::started("closed"));
            daemon.as_ref().is_some_and(|daemon| daemon.rounds() > 0)
        });
        context.close();
        assert_eq!(hear.try_recv().unwrap().end, End::Signalled(libc::SIGKILL));
        daemon.unwrap().goes_on();
    }

    fn an_application_that_reaps_everything_is_not_shown_who_reads() {
        static REAPED: AtomicUsize = AtomicUsize::new(0);
        extern "C" fn reap_all(_signal: c_int) {
            // SAFETY: no memory is involved.
            while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {
                REAPED.fetch_add(1, Ordering::Relaxed);
            }
        }
        set_disposition(reap_all as *const () as usize);
        let context = context_beside();
        let application = application();
        context.set_childproc(Owner::Libxl, application.clone()).unwrap();
        run(&context, &Daemon::command("reaped", &daemon()));
        Daemon::started("reaped").unwrap().goes_on();
        // The script, at most: who has reaped it depends on who came first.
        assert!(REAPED.load(Ordering::Relaxed) <= 1);
        assert_eq!(application.forks.load(Ordering::Relaxed), 1);
    }

    fn a_program_that_outlives_us_is_not_ended_by_what_it_says() {
        // SAFETY: the child uses what it has a copy of, as the test does, and leaves without a word to the test's frame.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let (mine, _log) = context();
            let script = format!("while kill -0 {} 2>&-; do sleep 0.01; done; echo out; echo err >&2; echo done >$0", std::process::id());
            let (_, _hear) = start(&mine, &Daemon::command("orphan", &script));
            // SAFETY: as above.
            unsafe { libc::_exit(0) };
        }
        assert_eq!(waitpid(pid, 0), Ok((pid, 0)));
        let file = std::env::temp_dir().join(format!("xlevent-left-{pid}-orphan"));
        let end = now() + PATIENCE;
        while std::fs::read_to_string(&file).unwrap_or_default() != "done\n" {
            assert!(now() < end, "it was ended");
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = std::fs::remove_file(file);
    }

    fn without_a_way_to_make_one_the_log_says_that_nobody_reads() {
        let (context, log) = context();
        let (pid, hear) = start(&context, &sh("sleep 1000 & echo $!; sleep 0.01"));
        await_end(pid);
        without(libc::SYS_clone);
        let outcome = await_outcome(&context, &hear);
        let left: pid_t = text(&outcome).trim().parse().unwrap();
        // SAFETY: the process that the child has started.
        unsafe { libc::kill(left, libc::SIGKILL) };
        assert!(matches!(log.take().as_slice(), [(Level::Warn, text)] if text.contains("a reader")));
    }
}
