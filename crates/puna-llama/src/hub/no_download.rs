//! What stands in for downloads in a build without the feature `hub`: an error that names the feature.

use std::path::PathBuf;

use super::{Hub, HubError, OfflineReason, Progress};

/// Why a search of the cache did not go on to the server.
pub(super) const NOT_ASKED: OfflineReason = OfflineReason::NoFeature;

impl Hub {
    /// Where a model lies; this build looks into the cache alone. Errors: as [`Self::resolve`].
    pub fn fetch(&self, model: &str, _progress: &mut dyn FnMut(Progress)) -> Result<PathBuf, HubError> {
        self.resolve(model)
    }
}
