//! Which module answers which path of the public listener.

use std::collections::BTreeMap;
use std::sync::Arc;

use ganglion_actors::{Incarnation, ModuleHandle};
use ganglion_api::{RECOMMENDED_NAMESPACE, ResourcePath, WebResource, is_at_or_below, is_reserved};
use percent_encoding::percent_decode_str;

/// A mounted web resource.
#[derive(Clone)]
pub struct MountedResource {
    /// Its path.
    pub path: ResourcePath,
    /// The module's present incarnation.
    pub incarnation: Arc<Incarnation>,
    /// What answers.
    pub resource: Arc<dyn WebResource>,
}

impl MountedResource {
    /// The module.
    #[must_use]
    pub fn module(&self) -> &ModuleHandle {
        self.incarnation.module()
    }
}

/// All web resources, by path.
#[derive(Default)]
pub struct ResourceTable {
    mounted: BTreeMap<String, MountedResource>,
    shadowed: Vec<(String, ResourcePath)>,
}

impl ResourceTable {
    /// Mounts a module's resource. The first one on a path stays, as in Synapse.
    pub(crate) fn mount(&mut self, path: ResourcePath, incarnation: Arc<Incarnation>, resource: Arc<dyn WebResource>) {
        if self.mounted.contains_key(path.as_str()) {
            self.shadowed.push((incarnation.module().id().to_owned(), path));
        } else {
            let mounted = MountedResource {
                path,
                incarnation,
                resource,
            };
            self.mounted.insert(mounted.path.as_str().to_owned(), mounted);
        }
    }

    /// The resource for a request's path, percent-encoded as it came: the longest path that it is at or below,
    /// compared on whole segments. Reserved paths have none, and neither have those with `.` or `..`, which a proxy and a
    /// module may read in two ways.
    #[must_use]
    pub fn find(&self, request_path: &str) -> Option<&MountedResource> {
        // Segment by segment, so that an encoded slash stays within its segment.
        let mut segments = Vec::new();
        for segment in request_path.trim_end_matches('/').split('/').skip(1) {
            segments.push(percent_decode_str(segment).decode_utf8().ok()?);
        }
        let path = joined(&segments);
        if is_reserved(&path) || path.split('/').any(|segment| matches!(segment, "." | "..")) {
            return None;
        }
        (0..=segments.len()).rev().find_map(|length| {
            let segments = &segments[..length];
            let decoded_slash = segments.iter().any(|segment| segment.contains('/'));
            if decoded_slash {
                None
            } else {
                self.mounted.get(&joined(segments))
            }
        })
    }

    /// Every mounted resource, by path.
    pub fn mounted(&self) -> impl Iterator<Item = &MountedResource> {
        self.mounted.values()
    }

    /// Resources that are never asked, since another module has their path.
    #[must_use]
    pub fn shadowed(&self) -> &[(String, ResourcePath)] {
        &self.shadowed
    }

    /// Resources outside of the namespace that is recommended for modules.
    pub fn outside_namespace(&self) -> impl Iterator<Item = &MountedResource> {
        self.mounted()
            .filter(|mounted| !is_at_or_below(mounted.path.as_str(), RECOMMENDED_NAMESPACE))
    }
}

fn joined(segments: &[impl AsRef<str>]) -> String {
    segments
        .iter()
        .fold(String::new(), |path, segment| path + "/" + segment.as_ref())
}
