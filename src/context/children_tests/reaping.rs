// SPDX-License-Identifier: LGPL-2.1-or-later
//! SIGCHLD, and who reaps whom.

use super::*;

tests! {
    fn a_status_that_somebody_else_has_taken_is_unknown() {
        let (context, _log) = context();
        // Or the kernel might say it.
        without(libc::SYS_ioctl);
        context.set_childproc(Owner::Selective, application()).unwrap();
        let (pid, hear) = start(&context, &sh("echo before; exec sleep 1000"));
        // SAFETY: our own child.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        assert_eq!(waitpid(pid, 0).unwrap().0, pid);
        let outcome = await_outcome(&context, &hear);
        assert_eq!((outcome.end, outcome.timed_out), (End::Unknown, false));
    }

    fn a_status_that_somebody_else_has_taken_is_known_where_the_kernel_keeps_it() {
        extern "C" fn reap_all(_signal: c_int) {
            // SAFETY: no memory is involved.
            while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
        }
        let expected = |end| if keeps_statuses() { end } else { End::Unknown };
        for beside in [false, true] {
            for disposition in [libc::SIG_IGN, reap_all as *const () as usize] {
                set_disposition(disposition);
                let context = if beside { context_beside() } else { context().0 };
                // Not one that ends by itself: it might be ours to reap when run_child looks at it first.
                let (pid, hear) = start(&context, &sh("trap 'echo said; exit 5' TERM; echo ready; while :; do sleep 0.01; done"));
                drive_until(&context, || lives_as(pid, "sh"));
                // SAFETY: a signal to our child.
                unsafe { libc::kill(pid, libc::SIGTERM) };
                let outcome = await_outcome(&context, &hear);
                // Alone, the library catches SIGCHLD where nobody does.
                let ours = !beside && disposition == libc::SIG_IGN;
                let end = outcome.end;
                assert!(end == if ours { End::Exited(5) } else { expected(End::Exited(5)) } || end == End::Signalled(15), "{end:?}");
            }
        }
    }

    fn by_default_a_handler_of_the_applications_is_one_line_and_no_error() {
        extern "C" fn nothing(_signal: c_int) {}
        set_disposition(nothing as *const () as usize);
        let (context, log) = context();
        for status in 0..5 {
            assert_eq!(run(&context, &sh(&format!("exit {status}"))).end, End::Exited(status));
        }
        assert!(matches!(log.take().as_slice(), [(Level::Info, text)] if text.contains("handler of its own")));
        // Who asks for the signal is told: at once, and then once a minute at most, as of everything.
        for round in 0..2 {
            context.set_childproc(Owner::Always, application()).unwrap();
            match (round, log.take().as_slice()) {
                (0, [(Level::Error, text)]) => assert!(text.contains("handler of its own")),
                (0, lines) => panic!("{lines:?}"),
                (_, lines) => assert_eq!(lines, []),
            }
            context.set_childproc(Owner::Libxl, application()).unwrap();
        }
        assert_eq!(run(&context, &sh("exit 5")).end, End::Exited(5));
        assert_eq!(log.take(), []);
    }

    fn by_default_the_handler_is_there_while_we_have_a_child() {
        let (context, log) = context();
        for before in [libc::SIG_DFL, libc::SIG_IGN] {
            set_disposition(before);
            let (pid, hear) = start(&context, &Command::new("/bin/sleep").args(["1000"]));
            assert!(handler_is_ours());
            let (_, other) = start(&context, &sh("exit 6"));
            assert_eq!(await_outcome(&context, &other).end, End::Exited(6));
            assert!(handler_is_ours());
            // SAFETY: our own child.
            unsafe { libc::kill(pid, libc::SIGUSR1) };
            assert_eq!(await_outcome(&context, &hear).end, End::Signalled(libc::SIGUSR1));
            assert_eq!(disposition(), before);
        }
        assert_eq!(log.take(), []);
    }

    fn by_default_others_are_reaped_only_while_we_have_a_child() {
        let (context, _log) = context();
        let application = application();
        context.set_childproc(Owner::Libxl, application.clone()).unwrap();
        let pid = zombie(9);
        context.occurred();
        assert_eq!(waitpid(pid, 0), Ok((pid, 9 << 8)));
        let (_, hear) = start(&context, &Command::new("/bin/sleep").args(["1000"]));
        let pid = zombie(8);
        drive_until(&context, || *application.told.lock() == [(pid, 8 << 8)]);
        assert!(hear.try_recv().is_err());
        context.close();
        assert_eq!(hear.recv().unwrap().end, End::Signalled(libc::SIGKILL));
        assert_eq!(disposition(), libc::SIG_DFL);
    }

    fn with_always_every_child_is_reaped_and_the_application_is_asked() {
        let (context, log) = context();
        let application = application();
        context.set_childproc(Owner::Always, application.clone()).unwrap();
        assert!(handler_is_ours());
        let first = zombie(1);
        drive_until(&context, || *application.told.lock() == [(first, 1 << 8)]);
        assert_eq!(log.take(), []);
        *application.answer.lock() = Answer::Unknown;
        let second = zombie(2);
        drive_until(&context, || application.told.lock().len() == 2);
        assert_eq!(log.take(), [(Level::Warn, format!("child {second}, which nobody knows, exited with status 2"))]);
        assert_eq!(run(&context, &sh("exit 5")).end, End::Exited(5));
        assert_eq!(application.told.lock().len(), 2);
        context.set_childproc(Owner::Mainloop, application.clone()).unwrap();
        assert_eq!(disposition(), libc::SIG_DFL);
    }

    fn a_callback_that_panics_keeps_no_other_child_from_being_reaped() {
        struct Bad(Mutex<Vec<c_int>>);
        impl Hooks for Bad {
            fn fork(&self) -> pid_t {
                NoHooks.fork()
            }
            fn reaped(&self, _pid: pid_t, status: c_int) -> Answer {
                self.0.lock().push(libc::WEXITSTATUS(status));
                panic!("on purpose");
            }
        }
        let (context, _log) = context();
        let hooks = Arc::new(Bad(Mutex::default()));
        context.set_childproc(Owner::Always, hooks.clone()).unwrap();
        let pids = [1, 2, 3].map(zombie);
        // Their signals were one, or more.
        let end = now() + PATIENCE;
        while hooks.0.lock().len() < 3 {
            assert!(now() < end, "{:?}", hooks.0.lock());
            let drive = || drive_until(&context, || hooks.0.lock().len() == 3);
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(drive));
        }
        let mut seen = hooks.0.lock().clone();
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3]);
        pids.into_iter().for_each(|pid| assert!(waitpid(pid, libc::WNOHANG).is_err()));
    }

    fn an_application_that_fails_in_its_callback_is_a_disaster() {
        struct Witness(Mutex<Vec<String>>);
        impl EventHooks for Witness {
            fn mask(&self) -> u64 {
                0
            }
            fn event_occurs(&self, _event: Event) {}
            fn disaster(&self, event_type: u32, message: &str, _errno: i32) -> bool {
                assert_eq!(event_type, 0);
                self.0.lock().push(message.to_owned());
                true
            }
        }
        let (context, _log) = context();
        let witness = Arc::new(Witness(Mutex::new(Vec::new())));
        let application = application();
        *application.answer.lock() = Answer::Failed(-3);
        context.set_event_hooks(Some(witness.clone()));
        context.set_childproc(Owner::Always, application.clone()).unwrap();
        let pid = zombie(1);
        drive_until(&context, || !witness.0.lock().is_empty());
        assert!(witness.0.lock()[0].contains(&format!("-3: child {pid}")), "{:?}", witness.0.lock());
    }

    fn with_selective_others_are_left_alone() {
        let (context, _log) = context();
        let application = application();
        context.set_childproc(Owner::Selective, application.clone()).unwrap();
        let pid = zombie(1);
        assert_eq!(run(&context, &sh("exit 5")).end, End::Exited(5));
        assert_eq!(waitpid(pid, libc::WNOHANG), Ok((pid, 1 << 8)));
        assert_eq!(*application.told.lock(), []);
    }

    fn with_mainloop_the_application_reaps_and_tells() {
        let (context, _log) = context();
        assert!(matches!(context.childproc_reaped(1, 0), Err(Error::Invalid(_))));
        assert!(matches!(context.childproc_sigchld_occurred(), Err(Error::Invalid(_))));
        context.set_childproc(Owner::Mainloop, application()).unwrap();
        let (pid, hear) = start(&context, &sh("exit 5"));
        assert_eq!(disposition(), libc::SIG_DFL);
        assert!(await_end(pid));
        context.occurred();
        assert!(hear.try_recv().is_err());
        assert_eq!(context.childproc_reaped(pid, 0x137f), Ok(true));
        assert!(hear.try_recv().is_err());
        let (_, status) = waitpid(-1, 0).unwrap();
        assert_eq!(context.childproc_reaped(pid + 1, status), Ok(false));
        assert_eq!(context.childproc_reaped(pid, status), Ok(true));
        assert_eq!(hear.try_recv().unwrap().end, End::Exited(5));
        assert_eq!(context.childproc_reaped(pid, status), Ok(false));
    }

    fn with_mainloop_a_word_of_sigchld_has_ours_reaped_and_no_others() {
        let (context, _log) = context();
        context.set_childproc(Owner::Mainloop, application()).unwrap();
        let other = zombie(1);
        let (pid, hear) = start(&context, &sh("exit 5"));
        let (_, still) = start(&context, &Command::new("/bin/sleep").args(["1000"]));
        assert!(await_end(pid));
        context.childproc_sigchld_occurred().unwrap();
        assert_eq!(hear.try_recv().unwrap().end, End::Exited(5));
        assert!(still.try_recv().is_err());
        assert_eq!(waitpid(other, libc::WNOHANG), Ok((other, 1 << 8)));
    }

    fn with_mainloop_an_application_that_never_tells_loses_nothing() {
        let (context, _log) = context();
        context.set_childproc(Owner::Mainloop, application()).unwrap();
        assert_eq!(run(&context, &sh("exit 5")).end, End::Exited(5));
    }

    fn a_context_that_reaps_everything_gives_others_theirs_back() {
        let ((context, _), (other, _), beside) = (context(), context(), context_beside());
        let application = application();
        context.set_childproc(Owner::Always, application.clone()).unwrap();
        other.set_childproc(Owner::Selective, application.clone()).unwrap();
        let (pid, hear) = start(&other, &sh("exit 5"));
        let (pid_beside, hear_beside) = start(&beside, &sh("exit 6"));
        await_end(pid);
        await_end(pid_beside);
        drive_until(&context, || !await_end(pid) && !await_end(pid_beside));
        assert_eq!(await_outcome(&other, &hear).end, End::Exited(5));
        assert_eq!(await_outcome(&beside, &hear_beside).end, End::Exited(6));
        assert_eq!(*application.told.lock(), []);
        context.close();
        assert!(handler_is_ours());
        other.close();
        assert_eq!(disposition(), libc::SIG_DFL);
    }

    fn beside_libxenlight_what_it_reaps_comes_back_and_sigchld_is_its_own() {
        let beside = context_beside();
        let application = application();
        beside.set_childproc(Owner::Always, application.clone()).unwrap();
        assert_eq!(disposition(), libc::SIG_DFL);
        // Not one that ends by itself: it might have ended, and been reaped, when run_child looks at it first.
        let (pid, hear) = start(&beside, &sh("exec sleep 100"));
        // SAFETY: a signal to our child, which nobody has reaped.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
        let (_, status) = waitpid(pid, 0).unwrap();
        assert_eq!(beside.libxl_reaped(pid, status), Answer::Noted);
        assert_eq!(hear.try_recv().unwrap().end, End::Signalled(libc::SIGTERM));
        *application.answer.lock() = Answer::Failed(-5);
        assert_eq!(beside.libxl_reaped(pid, status), Answer::Failed(-5));
        assert_eq!(*application.told.lock(), [(pid, status)]);
        assert_eq!(application.forks.load(Ordering::Relaxed), 1);
    }

    fn a_handler_of_the_applications_own_stays_and_our_children_are_cared_for() {
        extern "C" fn nothing(_signal: c_int) {}
        let own = nothing as *const () as usize;
        set_disposition(own);
        let (context, log) = context();
        let application = application();
        context.set_childproc(Owner::Always, application.clone()).unwrap();
        assert_eq!(disposition(), own);
        assert!(matches!(log.take().as_slice(), [(Level::Error, text)] if text.contains("handler of its own")));
        assert_eq!(run(&context, &sh("exit 5")).end, End::Exited(5));
        context.close();
        assert_eq!(disposition(), own);
    }

    fn a_handler_that_the_application_puts_over_ours_stays() {
        extern "C" fn nothing(_signal: c_int) {}
        let own = nothing as *const () as usize;
        let (context, _log) = context();
        context.set_childproc(Owner::Always, application()).unwrap();
        set_disposition(own);
        context.set_childproc(Owner::Mainloop, application()).unwrap();
        assert_eq!(disposition(), own);
    }

    fn more_subscribers_than_the_first_slots_hold_are_all_woken() {
        let contexts: Vec<_> = (0..70).map(|_| context().0).collect();
        contexts.iter().for_each(|context| context.set_childproc(Owner::Selective, application()).unwrap());
        zombie(1);
        for context in &contexts {
            let mut fds = [PollFd::new(context.fd().unwrap(), PollFlags::POLLIN)];
            let patience = PollTimeout::try_from(PATIENCE).unwrap();
            while nix::poll::poll(&mut fds, patience) != Ok(1) {
                assert_eq!(Errno::last(), Errno::EINTR);
            }
        }
        drop(contexts);
        assert_eq!(disposition(), libc::SIG_DFL);
    }
}
