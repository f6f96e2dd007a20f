// SPDX-License-Identifier: LGPL-2.1-or-later
//! Children in the life of a context, of its application, and of a forked process.

use super::*;

tests! {
    fn the_applications_fork_is_used_and_its_failure_told() {
        let (context, _log) = context();
        let willing = application();
        context.set_childproc(Owner::Libxl, willing.clone()).unwrap();
        assert_eq!(run(&context, &sh("exit 5")).end, End::Exited(5));
        assert_eq!(willing.forks.load(Ordering::Relaxed), 1);
        let unwilling = Arc::new(Application { fork_fails: Some(Errno::EAGAIN), ..Arc::into_inner(application()).unwrap() });
        context.set_childproc(Owner::Libxl, unwilling).unwrap();
        let error = context.run_child(&sh("true"), Box::new(|_| unreachable!())).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EAGAIN));
        assert_eq!(disposition(), libc::SIG_DFL);
    }

    fn a_fork_that_panics_leaves_no_child_no_handler_and_no_signal_blocked() {
        struct Bad;
        impl Hooks for Bad {
            fn fork(&self) -> pid_t {
                panic!("on purpose");
            }
            fn reaped(&self, _pid: pid_t, _status: c_int) -> Answer {
                Answer::Unknown
            }
        }
        #[derive(Default)]
        struct Loop(Mutex<Vec<&'static str>>);
        impl OsEventHooks for Loop {
            fn fd_register(&self, _fd: RawFd) -> std::result::Result<(), i32> {
                self.0.lock().push("register");
                Ok(())
            }
            fn fd_deregister(&self, _fd: RawFd) {
                self.0.lock().push("deregister");
            }
        }
        let (context, _log) = context();
        let hooks = Arc::new(Loop::default());
        context.set_os_hooks(hooks.clone()).unwrap();
        context.set_childproc(Owner::Libxl, Arc::new(Bad)).unwrap();
        assert!(!is_blocked(libc::SIGTERM));
        let run = || context.run_child(&sh("true"), Box::new(|_| unreachable!()));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
        assert!(!is_blocked(libc::SIGTERM));
        assert_eq!(disposition(), libc::SIG_DFL);
        assert_eq!(mem::take(&mut *hooks.0.lock()), ["register", "deregister"]);
        context.set_childproc(Owner::Libxl, application()).unwrap();
        assert_eq!(super::run(&context, &sh("exit 5")).end, End::Exited(5));
    }

    fn when_who_is_told_of_a_childs_end_panics_the_loop_is_asked_to_stop_polling_all_the_same() {
        #[derive(Default)]
        struct Loop(AtomicUsize);
        impl OsEventHooks for Loop {
            fn fd_register(&self, _fd: RawFd) -> std::result::Result<(), i32> {
                Ok(())
            }
            fn fd_deregister(&self, _fd: RawFd) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (context, _log) = context();
        let hooks = Arc::new(Loop::default());
        context.set_os_hooks(hooks.clone()).unwrap();
        // It may have ended, and its end be told, before it is said to have begun.
        let run = || {
            context.run_child(&sh("true"), Box::new(|_| panic!("on purpose"))).unwrap();
            drive_until(&context, || false);
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
        assert_eq!(hooks.0.load(Ordering::Relaxed), 1);
        assert_eq!(disposition(), libc::SIG_DFL);
    }

    fn the_mode_cannot_be_changed_while_there_is_a_child() {
        let (context, _log) = context();
        let (pid, hear) = start(&context, &Command::new("/bin/sleep").args(["1000"]));
        let refused = context.set_childproc(Owner::Mainloop, application());
        assert!(matches!(refused, Err(Error::Invalid(text)) if text.contains(&pid.to_string())));
        assert!(handler_is_ours());
        // SAFETY: our own child.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        assert_eq!(await_outcome(&context, &hear).end, End::Signalled(libc::SIGTERM));
        context.set_childproc(Owner::Mainloop, application()).unwrap();
    }

    fn children_are_counted() {
        let (context, _log) = context();
        let counted = || (context.stats().counts.children_started, context.stats().children_running);
        let (first, hear_first) = start(&context, &Command::new("/bin/sleep").args(["1000"]));
        let (second, hear_second) = start(&context, &Command::new("/bin/sleep").args(["1000"]));
        assert_eq!(counted(), (2, 2));
        // SAFETY: our own child.
        unsafe { libc::kill(second, libc::SIGTERM) };
        await_outcome(&context, &hear_second);
        assert_eq!(counted(), (2, 1));
        // SAFETY: as above.
        unsafe { libc::kill(first, libc::SIGTERM) };
        await_outcome(&context, &hear_first);
        assert_eq!(counted(), (2, 0));
        let refusing = Arc::new(Application { fork_fails: Some(Errno::EAGAIN), ..Arc::into_inner(application()).unwrap() });
        context.set_childproc(Owner::Libxl, refusing).unwrap();
        context.run_child(&sh("true"), Box::new(|_| unreachable!())).unwrap_err();
        assert_eq!(counted(), (2, 0));
    }

    fn the_loop_is_asked_to_poll_while_there_is_something_to_wait_for() {
        #[derive(Default)]
        struct Loop {
            refusal: Mutex<Option<i32>>,
            calls: Mutex<Vec<&'static str>>,
        }
        impl OsEventHooks for Loop {
            fn fd_register(&self, _fd: RawFd) -> std::result::Result<(), i32> {
                match *self.refusal.lock() {
                    Some(rc) => Err(rc),
                    None => {
                        self.calls.lock().push("register");
                        Ok(())
                    }
                }
            }
            fn fd_deregister(&self, _fd: RawFd) {
                self.calls.lock().push("deregister");
            }
        }
        let (context, log) = context();
        let hooks = Arc::new(Loop::default());
        context.set_os_hooks(hooks.clone()).unwrap();
        *hooks.refusal.lock() = Some(5);
        assert!(matches!(context.run_child(&sh("true"), Box::new(|_| unreachable!())), Err(Error::Hook(5))));
        context.set_childproc(Owner::Always, application()).unwrap();
        assert!(matches!(log.take().as_slice(), [(Level::Error, _)]));
        assert_eq!(disposition(), libc::SIG_DFL);
        context.set_childproc(Owner::Libxl, application()).unwrap();
        *hooks.refusal.lock() = None;
        assert_eq!(run(&context, &sh("exit 5")).end, End::Exited(5));
        assert_eq!(mem::take(&mut *hooks.calls.lock()), ["register", "deregister"]);
        context.set_childproc(Owner::Selective, application()).unwrap();
        assert_eq!(run(&context, &sh("exit 5")).end, End::Exited(5));
        assert_eq!(mem::take(&mut *hooks.calls.lock()), ["register"]);
        context.set_childproc(Owner::Mainloop, application()).unwrap();
        assert_eq!(mem::take(&mut *hooks.calls.lock()), ["deregister"]);
    }

    fn who_is_told_may_start_the_next() {
        fn start_next(context: Arc<Context>, left: i32, tell: Sender<Outcome>) {
            let again = context.clone();
            let done: Completion = Box::new(move |outcome| {
                assert_eq!(outcome.end, End::Exited(left));
                match left {
                    0 => tell.send(outcome).unwrap(),
                    _ => start_next(again, left - 1, tell),
                }
            });
            context.run_child(&sh(&format!("exit {left}")), done).unwrap();
        }
        let (context, _log) = context();
        let (tell, hear) = channel();
        start_next(context.clone(), 5, tell);
        assert_eq!(await_outcome(&context, &hear).end, End::Exited(0));
        assert_eq!(disposition(), libc::SIG_DFL);
    }

    fn threads_that_wait_for_events_drive_children_too() {
        let (context, _log) = context();
        std::thread::scope(|scope| {
            let waiters: Vec<_> = (0..2).map(|_| scope.spawn(|| context.wait(u64::MAX, None))).collect();
            let (_, first) = start(&context, &sh("exit 5"));
            let (_, second) = start(&context, &Command::new("/bin/sleep").args(["1000"]).time_limit(Duration::from_millis(20)));
            assert_eq!(first.recv_timeout(PATIENCE).unwrap().end, End::Exited(5));
            assert_eq!(second.recv_timeout(PATIENCE).unwrap().end, End::Signalled(libc::SIGTERM));
            context.close();
            waiters.into_iter().for_each(|waiter| assert!(waiter.join().unwrap().is_err()));
        });
    }

    fn closing_a_context_ends_its_children() {
        let (context, _log) = context();
        let (pid, hear) = start(&context, &sh("sleep 1000 & wait"));
        let (_, unreaped) = start(&context, &Command::new("/bin/sleep").args(["1000"]));
        context.close();
        assert_eq!(hear.try_recv().unwrap().end, End::Signalled(libc::SIGKILL));
        assert_eq!(unreaped.try_recv().unwrap().end, End::Signalled(libc::SIGKILL));
        assert!(!lives(pid));
        assert!(context.run_child(&sh("true"), Box::new(|_| unreachable!())).is_err());
        assert_eq!(disposition(), libc::SIG_DFL);
    }

    fn closing_a_context_leaves_its_dead_to_an_application_that_reaps() {
        let (context, _log) = context();
        context.set_childproc(Owner::Mainloop, application()).unwrap();
        let (pid, hear) = start(&context, &Command::new("/bin/sleep").args(["1000"]));
        context.close();
        assert_eq!(hear.try_recv().unwrap().end, End::Signalled(libc::SIGKILL));
        assert_eq!(waitpid(pid, 0), Ok((pid, libc::SIGKILL)));
    }

    fn many_children_of_many_threads_each_get_their_own_status() {
        let (context, _log) = context();
        let application = application();
        context.set_childproc(Owner::Always, application.clone()).unwrap();
        std::thread::scope(|scope| {
            let driver = scope.spawn(|| context.wait(u64::MAX, None));
            let starters: Vec<_> = (0..4)
                .map(|thread| {
                    let context = &context;
                    scope.spawn(move || {
                        for round in 0..25 {
                            let status = thread * 25 + round;
                            let (_, hear) = start(context, &sh(&format!("echo {status}; exit {status}")));
                            // One of the application's own in between.
                            short_lived(0);
                            let outcome = hear.recv_timeout(PATIENCE).unwrap();
                            assert_eq!((outcome.end, text(&outcome)), (End::Exited(status), format!("{status}\n")));
                        }
                    })
                })
                .collect();
            starters.into_iter().for_each(|starter| starter.join().unwrap());
            let end = now() + PATIENCE;
            while application.told.lock().len() < 100 && now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
            context.close();
            assert!(driver.join().unwrap().is_err());
        });
        assert_eq!(application.told.lock().len(), 100);
        assert!(application.told.lock().iter().all(|(_, status)| *status == 0));
        assert_eq!(application.forks.load(Ordering::Relaxed), 100);
    }

    fn what_a_forked_process_still_has_open_does_not_keep_the_loop_busy() {
        let (context, _log) = context();
        let (pid, hear) = start(&context, &sh("sleep 1000 & echo $!; exec sleep 1000"));
        // It has copies of everything, and does nothing with them.
        // SAFETY: the process makes two calls, and is killed, if by the test's end.
        let copy = unsafe { libc::fork() };
        if copy == 0 {
            // SAFETY: as above.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            loop {
                // SAFETY: as above.
                unsafe { libc::pause() };
            }
        }
        // It has written, and we have read.
        drive_until(&context, || lives_as(pid, "sleep"));
        // SAFETY: our own child.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        let outcome = await_outcome(&context, &hear);
        assert_eq!(outcome.end, End::Signalled(libc::SIGKILL));
        // With this the output ends, which nobody waits for any more.
        let left: pid_t = text(&outcome).trim().parse().unwrap();
        // SAFETY: the process that the child has started.
        unsafe { libc::kill(left, libc::SIGKILL) };
        drive_until(&context, || !lives(left));
        drive_until(&context, || !is_readable(&context));
        // SAFETY: the process above.
        unsafe { libc::kill(copy, libc::SIGKILL) };
    }

    fn a_forked_child_forgets_children_handler_and_descriptors() {
        let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = count();
        let (context, _log) = context();
        insert(1, context.clone());
        context.set_childproc(Owner::Always, application()).unwrap();
        let (_, hear) = start(&context, &sh("sleep 1000 & wait"));
        // SAFETY: the child uses what it has a copy of, and leaves without a word to the test's frame.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            forget_all();
            let forgotten = disposition() == libc::SIG_DFL && count() == before && lookup(1).is_none();
            let mut fine = forgotten;
            let (mine, _log) = super::context();
            insert(2, mine.clone());
            mine.set_childproc(Owner::Always, application()).unwrap();
            fine &= handler_is_ours() && run(&mine, &sh("exit 5")).end == End::Exited(5);
            mine.close();
            // SAFETY: as above.
            unsafe { libc::_exit(if fine && disposition() == libc::SIG_DFL { 0 } else { 1 }) };
        }
        // With this owner the context reaps it.
        await_end(pid);
        assert_eq!(waitpid(pid, 0), Ok((pid, 0)));
        assert!(handler_is_ours() && hear.try_recv().is_err());
        context.close();
        assert_eq!(hear.try_recv().unwrap().end, End::Signalled(libc::SIGKILL));
        assert!(remove(1, &context));
    }
}
