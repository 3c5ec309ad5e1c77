//! The goldens that are committed, and the tree's structure.

use std::path::Path;

/// What a chore says is printed where it fails.
#[track_caller]
fn passes(chore: impl FnOnce(&mut dyn FnMut(&str)) -> xtask::Result<bool>) {
    let mut lines = Vec::new();
    let fine = chore(&mut |line| lines.push(line.to_owned())).unwrap();
    lines.iter().filter(|line| line.starts_with("skipped")).for_each(|line| println!("{line}"));
    assert!(fine, "{}", lines.into_iter().filter(|line| !line.starts_with("ok")).collect::<Vec<_>>().join("\n"));
}

#[test]
fn committed_goldens_are_right() {
    passes(|say| xtask::goldens::run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../puna-conformance/goldens"), "cpu", say));
}

#[test]
fn the_tree_is_tidy() {
    passes(|say| xtask::tidy::run(say));
}
