//! The contract of every op on the CUDA back end, its kernels executed on the processor.

use std::process::Command;

use puna_conformance::run_family;
use puna_cuda::{EmulatorOptions, emulated};

/// What tells a process that it is one of those below.
const CHILD: &str = "PUNA_CONFORMANCE_CHILD";

/// Runs a family in a process of its own: the emulator has one current block a process, so that this is how families run side by side.
fn family(name: &str) {
    if std::env::var_os(CHILD).is_some() {
        return run_family(&emulated(EmulatorOptions::default()).expect("a C++ compiler"), name);
    }
    let this = std::env::current_exe().expect("the path of this program");
    let output = Command::new(this).args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().expect("this program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
}

macro_rules! families {
    ($($family:ident)*) => {
        $(#[test]
        fn $family() {
            family(stringify!($family));
        })*

        #[test]
        fn every_family_is_run() {
            let run = [$(stringify!($family)),*];
            assert!(puna_conformance::FAMILIES.iter().map(|(name, _)| *name).eq(run));
        }
    };
}
families! {
    elementwise reduce copy index matmul norm rope attention mlp softmax loss optimizer sampling random tasks device record errors
}
