//! What the tests of the C interface share: the libraries as a host finds them, compilers, and programs to run.
#![allow(dead_code, reason = "each test program uses its part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The folder with libdocent.so and libdocent.a, built from the sources as they are.
pub fn libraries() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // <target>/<profile>/deps/<this program>
        let profile = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_path_buf();
        let target = profile.parent().unwrap();
        let name = match profile.file_name().unwrap().to_str().unwrap() {
            "debug" => "dev",
            name => name,
        };
        let mut build = Command::new(env!("CARGO"));
        // As README's test command selects packages and features, so that no dependency is compiled a second time.
        build.args(["build", "--quiet", "--workspace", "--features", "cli", "--lib", "--bins", "--tests"]);
        build.args(["--profile", name, "--target-dir"]).arg(target);
        let built = build.current_dir(root()).output().unwrap();
        assert!(built.status.success(), "{build:?}: {}", String::from_utf8_lossy(&built.stderr));
        profile
    })
}

/// Whether `tool` can be run. Without it a test says so and is left out; where CI is set, it fails.
pub fn have(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        eprintln!("SKIPPED: {tool} is not installed");
        assert!(std::env::var_os("CI").is_none(), "{tool} is not installed, and CI is set");
    }
    found
}

/// A language with the strictest of the usual warnings.
#[derive(Clone, Copy)]
pub enum Language {
    C,
    Cxx,
}

/// How the library is linked.
#[derive(Clone, Copy, Debug)]
pub enum Link {
    /// Compile only.
    None,
    /// Into the program.
    Static,
    /// When the program starts.
    Shared,
    /// By the program itself.
    Dynamic,
}

impl Language {
    pub fn compiler(self) -> &'static str {
        match self {
            Self::C => "gcc",
            Self::Cxx => "g++",
        }
    }

    /// Compiles `sources` to `output`.
    pub fn build(self, sources: &[PathBuf], output: &Path, link: Link, flags: &[&str]) {
        let mut command = Command::new(self.compiler());
        command.arg(match self {
            Self::C => "-std=c11",
            Self::Cxx => "-std=c++17",
        });
        command.args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g", "-I"]).arg(root().join("include"));
        command.args(flags).args(sources).arg("-o").arg(output);
        match link {
            Link::None => command.arg("-c"),
            Link::Static => command.arg(libraries().join("libdocent.a")).args(["-lm", "-lpthread", "-ldl"]),
            Link::Shared => {
                // A program looks for the library under its SONAME, as after an installation.
                let installed = installed(output.parent().unwrap());
                command.arg("-L").arg(&installed).args(["-ldocent", "-lm", "-lpthread"]);
                command.arg(format!("-Wl,-rpath,{}", installed.display()))
            }
            Link::Dynamic => command.args(["-lpthread", "-ldl"]),
        };
        let said = command.output().unwrap();
        assert!(said.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said.stderr));
    }
}

/// The shared library under its names in a folder inside `dir`.
pub fn installed(dir: &Path) -> PathBuf {
    let installed = dir.join("lib");
    std::fs::create_dir_all(&installed).unwrap();
    for name in ["libdocent.so", "libdocent.so.0"] {
        let link = installed.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(libraries().join("libdocent.so"), link).unwrap();
        }
    }
    installed
}

/// Runs a program to its end.
pub fn run(program: &Path, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap()
}

/// Runs a program under valgrind, which ends it with 9 on an error or a leak.
pub fn valgrind(program: &Path, args: &[&str]) -> Output {
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--error-exitcode=9", "--leak-check=full"]);
    command.arg("--errors-for-leak-kinds=definite,indirect,possible");
    command.arg(program).args(args).output().unwrap()
}

/// Standard output of a program that must have succeeded and said nothing else.
pub fn said(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && err.is_empty(), "{}\n{out}\n{err}", output.status);
    out.into_owned()
}
