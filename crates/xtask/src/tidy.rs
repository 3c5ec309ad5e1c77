//! The tree's structure, as a test: the same name in every room.

use std::fs;

use crate::{Result, root};

/// Where each op family has its file.
const ROOMS: [&str; 5] = [
    "crates/puna-tensor/src/op",
    "crates/puna-cpu/src/ops",
    "crates/puna-cuda/src/ops",
    "crates/puna-wgpu/src/ops",
    "crates/puna-conformance/src",
];

/// Where each family that has derivatives has its file.
const RULES: &str = "crates/puna-autograd/src/rules";
/// Families none of whose ops has one.
const NOT_DIFFERENTIABLE: [&str; 3] = ["optimizer", "random", "sampling"];

/// Files in which `unsafe` may stand: those named for it.
const UNSAFE: [&str; 5] = ["simd", "pool", "mmap", "driver", "ffi"];

/// Checks the structure; false where something is out of place, with a line for each.
pub fn run(say: &mut dyn FnMut(&str)) -> Result<bool> {
    let mut fine = true;
    let mut complain = |line: String| {
        say(&line);
        fine = false;
    };
    let root = root();
    let exists = |room: &str, family: &str| {
        root.join(room).join(format!("{family}.rs")).exists() || root.join(room).join(family).join("mod.rs").exists()
    };
    for family in families(&root.join(ROOMS[0]))? {
        for room in ROOMS.iter().filter(|room| !exists(room, &family)) {
            complain(format!("{room}: the op family {family} has no file of its name"));
        }
        if exists(RULES, &family) == NOT_DIFFERENTIABLE.contains(&family.as_str()) {
            complain(format!("{RULES}: the op family {family} has no file of its name, or one that it should not have"));
        }
    }
    for path in sources(&root.join("crates"))?.into_iter().chain(sources(&root.join("examples"))?) {
        let name = path.strip_prefix(&root)?.to_string_lossy().replace('\\', "/");
        let text = fs::read_to_string(&path)?;
        let code = text.lines().map(|line| line.split("//").next().unwrap_or(""));
        let is_unsafe =
            |line: &str| ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|word| line.contains(word));
        if !UNSAFE.iter().any(|word| name.contains(word)) && !name.contains("xtask/src/tidy") && code.clone().any(is_unsafe) {
            complain(format!("{name}: unsafe stands in files named for it only ({})", UNSAFE.join(", ")));
        }
    }
    Ok(fine)
}

/// The families: the files of the room that defines ops, but for those that serve them all.
fn families(room: &std::path::Path) -> Result<Vec<String>> {
    let names =
        fs::read_dir(room)?.flatten().map(|entry| entry.path().file_stem().unwrap_or_default().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|name| !["mod", "args", "custom"].contains(&name.as_str())).collect();
    names.sort();
    Ok(names)
}

fn sources(folder: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}
