//! The kernels that were built in.

use std::sync::OnceLock;

use puna_kernels::cuda::Source;
use puna_tensor::{Error, Kind, Result};

use super::cubins::Cubins;

/// What `PUNA_CUBINS` named when this was built.
static FILE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cubins"));

/// A unit's code for a card, if any was built in; why it does not serve, if it does not.
pub(super) fn find(source: &Source, defines: &[String], capability: u32) -> Result<Option<Vec<u8>>> {
    static READ: OnceLock<std::result::Result<Cubins<'static>, String>> = OnceLock::new();
    let read = READ.get_or_init(|| Cubins::read(FILE).map_err(|e| e.to_string()));
    let read = read.as_ref().map_err(|message| Error::new(Kind::Backend, "built in", message.clone()))?;
    read.find(source, defines, capability).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_built_in_is_read() {
        assert!(Cubins::read(FILE).unwrap().count() > 0);
    }
}
