//! Kernels for all cards in one file: made, made again, read back.

use puna_cuda::Cubins;
use puna_kernels::cuda::kernel;

#[test]
fn a_set_is_made_once_and_found_by_every_card() {
    if !xtask::fixtures::nvrtc().exists() && std::env::var_os("PUNA_NVRTC").is_none() {
        println!("SKIPPED: NVIDIA's compiler is not there; run cargo xtask fixtures nvrtc");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let make = |names: &[&str]| {
        let mut lines = Vec::new();
        let units = |unit: &puna_cuda::CheckedUnit| ["parts.cu", "int8.cu"].contains(&unit.source);
        let path =
            xtask::cubins::make(folder.path(), &units, &|name| names.contains(&name), &mut |line| lines.push(line.to_owned()));
        (std::fs::read(path.unwrap()).unwrap(), lines.concat())
    };
    let (file, said) = make(&["sm_75", "sm_90a"]);
    assert!(said.contains("6 kernels for 2 architectures, 6 of them compiled"), "{said}");
    let (more, said) = make(&["sm_75", "sm_80", "sm_90a"]);
    assert!(said.contains("9 kernels for 3 architectures, 3 of them compiled"), "{said}");
    let (again, said) = make(&["sm_75", "sm_80", "sm_90a"]);
    assert!(said.contains("9 kernels for 3 architectures, 0 of them compiled") && again == more, "{said}");
    let (before, after) = (Cubins::read(&file).unwrap(), Cubins::read(&more).unwrap());
    assert_eq!((before.count(), after.count()), (6, 9));
    let code = |set: &Cubins<'_>, capability| set.find(&kernel("parts.cu"), &["X=f32".into()], capability);
    assert!(code(&after, 89).unwrap().starts_with(b"\x7fELF"));
    assert_eq!(code(&before, 90).unwrap(), code(&after, 90).unwrap());
    let error = code(&before, 89).unwrap_err().to_string();
    assert!(error.contains("parts.cu X=f32 for compute capability 8.9"), "{error}");
}
