// SPDX-License-Identifier: LGPL-2.1-or-later
//! `xlevent run`: who has the library and who hasn't, as the kernel shows it.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use support::{Folder, Running, folder, host, nowhere, on, output, text};

/// What a shell says of itself: whether one of our objects is loaded, and what it would hand on. For a file that is either
/// run by a new shell, or read by one that is there.
const LOOK: &str = r#"
if grep -q /libxlevent "/proc/$$/maps"; then has=library; else has=nothing; fi
echo "$1 $has preload=[$LD_PRELOAD] run=[$XLEVENT_RUN]"
"#;

/// The same of the environment that the kernel has given a process, for those that `run` has not started itself.
const LOOK_AT_ENVIRON: &str = r#"
echo "$1 was given $(tr '\0' '\n' <"/proc/$$/environ" | grep -cE '^(LD_PRELOAD|XLEVENT_RUN)=')"
"#;

/// `text` with `LOOK NAME` for what a shell is to say of itself.
fn prepared() -> Folder {
    let folder = Folder::new(&format!("run-{:?}", std::thread::current().id()).replace(['(', ')'], "-"));
    folder.script("look", LOOK);
    folder.script("environ", LOOK_AT_ENVIRON);
    folder
}

fn run(folder: &Folder, words: &[&str]) -> Output {
    output(nowhere(&[&["run"], words].concat()).env("HERE", folder.path("")))
}

fn said(done: &Output) -> String {
    assert_eq!(text(&done.stderr), "");
    text(&done.stdout)
}

const COMMANDS: &str = r#"
set -- program; . "$HERE/look"
sh "$HERE/look" child
sh "$HERE/environ" child
sh -c 'sh "$HERE/look" grandchild; sh "$HERE/environ" grandchild; true'
(sh "$HERE/look" of-a-fork)
"#;

#[test]
fn the_program_has_the_library_and_what_it_starts_has_not() {
    let folder = prepared();
    let done = run(&folder, &["sh", "-c", COMMANDS]);
    let expected = "program library preload=[] run=[]\n\
                    child nothing preload=[] run=[]\nchild was given 0\n\
                    grandchild nothing preload=[] run=[]\ngrandchild was given 0\n\
                    of-a-fork nothing preload=[] run=[]\n";
    assert_eq!(said(&done), expected);
}

#[test]
fn what_was_preloaded_before_stays() {
    let folder = prepared();
    let mut command = nowhere(&["run", "sh", "-c", COMMANDS]);
    let done = output(command.env("HERE", folder.path("")).env("LD_PRELOAD", "libm.so.6:libutil.so.1"));
    assert_eq!(said(&done).matches(" preload=[libm.so.6:libutil.so.1] run=[]\n").count(), 4, "{}", text(&done.stdout));
}

#[test]
fn a_script_has_it_and_what_it_becomes_and_not_what_it_starts() {
    let folder = prepared();
    let becomes =
        r#"exec sh -c '. "$HERE/look"; sh "$HERE/look" child-of-it; sh "$HERE/environ" child-of-it' sh program"#;
    // Its children are started over: their names, arguments and descriptors stay.
    let script = format!(
        "#!/bin/sh\nset -- script; . \"$HERE/look\" | sed 's/=[^ ]*/=/g'\nsh \"$HERE/look\" child\nsh \"$HERE/environ\" child\n\
         sh -c 'sh \"$HERE/look\" grandchild; echo \"$0 $*\"; cat' name 'a  b' '' c <\"$HERE/input\"\n{becomes}\n"
    );
    std::fs::write(folder.path("input"), "from its input\n").unwrap();
    let script = folder.script("script", &script);
    let done = run(&folder, &[script.to_str().unwrap()]);
    let expected = "script library preload= run=\n\
                    child nothing preload=[] run=[]\nchild was given 0\n\
                    grandchild nothing preload=[] run=[]\nname a  b  c\nfrom its input\n\
                    program library preload=[] run=[]\n\
                    child-of-it nothing preload=[] run=[]\nchild-of-it was given 0\n";
    assert_eq!(said(&done), expected);
}

/// xl itself, from the distribution: xlevent answers its calls.
#[test]
fn xl_calls_the_library() {
    let host = host();
    host.create(&xensim::Config::named("web")).unwrap();
    let find = Command::new("sh").args(["-c", "ls /usr/lib/xen-*/bin/xl | tail -n 1"]).output().unwrap();
    let xl = text(&find.stdout).trim_end().to_owned();
    let folder = Folder::new("xl");
    let wrapper = folder.script("xl", &format!("#!/bin/sh\nexec {xl} \"$@\"\n"));
    for program in [&xl, wrapper.to_str().unwrap()] {
        let done = output(on(&host, &["run", program, "list"]).env("XLEVENT_TRACE", "1"));
        assert!(done.status.success(), "{}", text(&done.stderr));
        assert!(text(&done.stdout).contains("\nweb "), "{}", text(&done.stdout));
        assert!(text(&done.stderr).contains("xlevent: libxl_ctx_alloc = 0\n"), "{}", text(&done.stderr));
    }
}

#[test]
fn signals_and_the_status_are_the_programs() {
    let status = |command: &str| nowhere(&["run", "sh", "-c", command]).status().unwrap();
    assert_eq!(status("exit 7").code(), Some(7));
    assert_eq!(status("kill -9 $$").signal(), Some(9));
    // There is no process in between.
    let running = Running::start(&mut nowhere(&["run", "--", "sh", "-c", "echo $$; cat"]));
    let pid: i32 = running.line().parse().unwrap();
    assert_eq!(pid, running.pid());
}

#[test]
fn programs_that_are_not_there_or_none() {
    let folder = prepared();
    let failed = |words: &[&str]| {
        let done = run(&folder, words);
        (done.status.code(), text(&done.stderr).replace(folder.path("").to_str().unwrap(), ""))
    };
    std::fs::write(folder.path("data"), "data").unwrap();
    folder.script("lost", "#!/nonexistent/interpreter\n");
    let path = |name: &str| folder.path(name).to_str().unwrap().to_owned();
    assert_eq!(failed(&["no-such-program-at-all"]).0, Some(127));
    assert_eq!(
        failed(&["/nonexistent/program"]),
        (Some(127), "xlevent: '/nonexistent/program': there is no such program\n".into())
    );
    assert_eq!(failed(&[&path("data")]), (Some(126), "xlevent: 'data' can't be executed\n".into()));
    assert_eq!(failed(&[&path("")]).0, Some(126));
    assert_eq!(failed(&[&path("lost")]).0, Some(127));
    assert_eq!(failed(&[]).0, Some(2));
}

#[test]
fn a_program_that_cannot_have_the_library_is_run_without_and_it_says_so() {
    let folder = prepared();
    let path = folder.path("static");
    let source = folder.path("static.c");
    std::fs::write(
        &source,
        "extern char **environ; int puts(const char *); int main(void) { int n = 0;\n\
        for (char **e = environ; *e; e++) n += (*e)[0] == 'X' && (*e)[8] == 'R';\n\
        puts(n ? \"told\" : \"not told\"); return 5; }\n",
    )
    .unwrap();
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    assert!(Command::new(compiler).arg("-static").arg(&source).arg("-o").arg(&path).status().unwrap().success());
    let done = run(&folder, &[path.to_str().unwrap()]);
    assert_eq!((done.status.code(), text(&done.stdout)), (Some(5), "not told\n".to_owned()));
    let shown = path.display();
    assert_eq!(text(&done.stderr), format!("xlevent: {shown} is linked statically, so it runs without the library\n"));
    // A script for such a program.
    let script = folder.script("script", &format!("#!{shown}\n"));
    assert!(text(&run(&folder, &[script.to_str().unwrap()]).stderr).contains("is linked statically"));
}

/// The command elsewhere, as an installation is laid out.
fn installed(tree: &Folder, libdir: &str) -> PathBuf {
    tree.link(&folder().join("libxlevent.so"), &format!("{libdir}/libxlevent.so.1"));
    tree.link(&folder().join("libxlevent_run.so"), &format!("{libdir}/xlevent/libxlevent_run.so"));
    tree.link(&folder().join("xlevent"), "bin/xlevent")
}

#[test]
fn an_installation_finds_its_own_library_wherever_it_is() {
    for (place, found) in [("tree", true), ("with blank", false)] {
        for libdir in ["lib", "lib64", "lib/x86_64-linux-gnu"] {
            let folder = Folder::new(place);
            let command = installed(&folder, libdir);
            let done = Command::new(&command).args(["run", "sh", "-c", "cat /proc/$$/maps"]).output().unwrap();
            if found {
                let library = std::fs::canonicalize(folder.path(libdir)).unwrap().join("libxlevent.so.1");
                assert!(text(&done.stdout).contains(library.to_str().unwrap()), "{}", text(&done.stderr));
            } else {
                assert_eq!(done.status.code(), Some(125));
                assert!(text(&done.stderr).contains("has a colon or a blank in its path"), "{}", text(&done.stderr));
            }
        }
    }
    let folder = Folder::new("alone");
    let command = installed(&folder, "elsewhere");
    let done = Command::new(&command).args(["run", "true"]).output().unwrap();
    assert_eq!(done.status.code(), Some(125));
    assert!(text(&done.stderr).contains("are in none of "), "{}", text(&done.stderr));
}
