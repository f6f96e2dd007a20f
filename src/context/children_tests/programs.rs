// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a program is given, and what is kept of it.

use super::*;

/// The outcome of a script whose time is up after it has said so many lines: if it comes to that later, it has more time.
fn run_when_ready(context: &Context, script: &str, lines: usize) -> Outcome {
    let mut limit = Duration::from_millis(300);
    loop {
        let outcome = run(context, &sh(script).time_limit(limit).grace(Duration::from_millis(50)));
        if text(&outcome).lines().count() >= lines {
            return outcome;
        }
        assert!(limit < PATIENCE, "{outcome:?}");
        limit *= 4;
    }
}

tests! {
    fn a_program_has_its_output_and_its_status_told() {
        let (context, _log) = context();
        let outcome = run(&context, &sh("echo out; echo err >&2; exit 3"));
        assert_eq!((text(&outcome), lines(&outcome.errors)), ("out\n".to_owned(), "err\n".to_owned()));
        assert_eq!((outcome.end, outcome.timed_out), (End::Exited(3), false));
    }

    fn a_program_gets_arguments_environment_and_an_empty_input() {
        let (context, _log) = context();
        let outcome = run(&context, &sh("cat; echo \"$0|$1|$A\"; readlink /proc/self/fd/0").args(["zero", "o n e"]).env("A", "b c"));
        assert_eq!(text(&outcome), "zero|o n e|b c\n/dev/null\n");
        let outcome = run(&context, &Command::new("/usr/bin/env").env_clear().env("ONLY", "this"));
        assert_eq!(text(&outcome), "ONLY=this\n");
        let outcome = run(&context, &sh("/usr/bin/env | grep ^XLEVENT_TEST_"));
        assert!(text(&outcome).contains("XLEVENT_TEST_ALONE="));
    }

    fn a_program_that_cannot_be_run_says_why() {
        let (context, _log) = context();
        let end = |path: &str| run(&context, &Command::new(path)).end;
        assert_eq!(end("/no/such/program"), End::NotStarted(Errno::ENOENT));
        assert_eq!(end("/etc/passwd"), End::NotStarted(Errno::EACCES));
        assert_eq!(end("sh"), End::NotStarted(Errno::ENOENT));
        assert_eq!(end("/bin/true"), End::Exited(0));
    }

    fn a_flood_of_output_is_cut_and_does_not_block_the_program() {
        let (context, _log) = context();
        let outcome = run(&context, &sh("yes | head -c 3000000; echo last; yes err | head -c 3000000 >&2; exit 7"));
        let count = |said: &Said| said.first().count() as u64 + said.left_out() + said.last().count() as u64;
        assert_eq!((count(&outcome.output), count(&outcome.errors)), (1_500_001, 750_000));
        assert_eq!(outcome.output.last().last().map(|line| line.text.as_slice()), Some(&b"last"[..]));
        assert_eq!(outcome.end, End::Exited(7));
        let outcome = run(&context, &sh("head -c 3000000 /dev/zero >&2"));
        let lengths: Vec<_> = outcome.errors.first().map(|line| line.text.len() as u64 + line.cut_off).collect();
        assert_eq!((lengths, outcome.end), (vec![3_000_000], End::Exited(0)));
    }

    fn what_a_program_has_said_before_its_end_is_kept_whatever_the_pipe_holds() {
        let (context, _log) = context();
        // Nobody reads until it has ended.
        let script = "seq 6000 >&2; echo out";
        let (pid, hear) = start(&context, &sh(script));
        await_end(pid);
        let outcome = await_outcome(&context, &hear);
        assert_eq!(outcome.errors.last().last().map(|line| line.text.as_slice()), Some(&b"6000"[..]));
        assert_eq!(text(&outcome), "out\n");
    }

    fn a_program_whose_time_is_up_is_told_to_end() {
        let (context, _log) = context();
        let outcome = run(&context, &Command::new("/bin/sleep").args(["1000"]).time_limit(Duration::from_millis(20)));
        assert_eq!((outcome.end, outcome.timed_out), (End::Signalled(libc::SIGTERM), true));
        let outcome = run(&context, &sh("echo quick").time_limit(PATIENCE));
        assert_eq!((outcome.end, outcome.timed_out), (End::Exited(0), false));
    }

    fn one_that_does_not_listen_is_killed_with_all_that_it_has_started() {
        let (context, _log) = context();
        let outcome = run_when_ready(&context, "trap '' TERM; sleep 1000 & echo $!; while :; do wait; done", 1);
        assert_eq!((outcome.end, outcome.timed_out), (End::Signalled(libc::SIGKILL), true));
        let left: pid_t = text(&outcome).trim().parse().unwrap();
        drive_until(&context, || !lives(left));
    }

    fn what_ignores_the_end_of_its_leader_is_killed_too() {
        let (context, _log) = context();
        let outcome = run_when_ready(&context, "(trap '' TERM; echo ready; exec sleep 1000) & echo $!; wait", 2);
        assert_eq!((outcome.end, outcome.timed_out), (End::Signalled(libc::SIGTERM), true));
        let left: pid_t = text(&outcome).lines().find_map(|line| line.parse().ok()).unwrap();
        drive_until(&context, || !lives(left));
    }

    fn a_grandchild_that_holds_the_output_open_keeps_nobody_waiting() {
        let (context, _log) = context();
        let outcome = run(&context, &sh("sleep 1000 & echo $!"));
        assert_eq!(outcome.end, End::Exited(0));
        let left: pid_t = text(&outcome).trim().parse().unwrap();
        assert!(lives(left));
        // SAFETY: the process that the child has started.
        unsafe { libc::kill(left, libc::SIGKILL) };
    }

    fn a_program_starts_with_all_signals_as_by_default() {
        let (context, _log) = context();
        // SAFETY: valid sets; SIGUSR2 is ignored and SIGUSR1 blocked in this thread, which forks.
        unsafe {
            let mut set = MaybeUninit::zeroed();
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGUSR1);
            libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            libc::signal(libc::SIGUSR2, libc::SIG_IGN);
        }
        let outcome = run(&context, &Command::new("/bin/sed").args(["-n", "/^Sig/p", "/proc/self/status"]));
        let field = |name: &str| {
            let text = text(&outcome);
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        assert_eq!((field("SigBlk:"), field("SigIgn:"), field("SigCgt:"), field("SigPnd:")), (0, 0, 0, 0));
    }

    fn a_program_inherits_three_descriptors_and_a_group_of_its_own() {
        let (context, _log) = context();
        // SAFETY: no memory is involved. Two that exec does not close.
        let open = unsafe { (libc::dup(0), libc::fcntl(0, libc::F_DUPFD, 200)) };
        assert!(open.0 > 2 && open.1 >= 200);
        // The last is that of the directory.
        assert_eq!(text(&run(&context, &Command::new("/bin/ls").args(["/proc/self/fd"]))), "0\n1\n2\n3\n");
        let (pid, hear) = start(&context, &Command::new("/bin/cat").args(["/proc/self/stat"]));
        let outcome = await_outcome(&context, &hear);
        let stat = text(&outcome);
        let group = stat.rsplit(") ").next().unwrap().split(' ').nth(2).unwrap();
        assert_eq!(group.parse(), Ok(pid));
        without(libc::SYS_close_range);
        assert_eq!(text(&run(&context, &Command::new("/bin/ls").args(["/proc/self/fd"]))), "0\n1\n2\n3\n");
    }

    fn a_parent_without_descriptors_0_to_2_can_have_children() {
        let (context, _log) = context();
        let saved = [0, 1, 2].map(|fd| {
            // SAFETY: no memory is involved; they are put back below, before anybody writes to them.
            unsafe {
                let saved = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 100);
                libc::close(fd);
                saved
            }
        });
        let outcome = run(&context, &sh("echo out; echo err >&2; cat"));
        for (fd, saved) in saved.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { libc::dup2(saved, fd as c_int) };
        }
        assert_eq!((text(&outcome) + &lines(&outcome.errors), outcome.end), ("out\nerr\n".to_owned(), End::Exited(0)));
    }

    fn a_kernel_without_pidfds_will_do() {
        let (context, _log) = context();
        without(libc::SYS_pidfd_open);
        assert_eq!(run(&context, &sh("exit 4")).end, End::Exited(4));
        let command = Command::new("/bin/sleep").args(["1000"]).time_limit(Duration::from_millis(20));
        assert_eq!(run(&context, &command).end, End::Signalled(libc::SIGTERM));
        // With nobody to tell us of SIGCHLD.
        let beside = context_beside();
        assert_eq!(run(&beside, &sh("exit 5")).end, End::Exited(5));
        let (pid, hear) = start(&beside, &Command::new("/bin/sleep").args(["1000"]));
        // SAFETY: our own child.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        assert_eq!(waitpid(pid, 0).unwrap().0, pid);
        assert_eq!(await_outcome(&beside, &hear).end, End::Unknown);
    }
}
