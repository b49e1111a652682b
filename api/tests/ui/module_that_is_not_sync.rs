//! Calls borrow the one instance from several threads.

use std::cell::Cell;

use ganglion_api::{Module, ModuleApi, ModuleError, NoConfig};

struct M(Cell<u8>);

impl Module for M {
    type Config = NoConfig;

    fn new(_: NoConfig, _: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        Ok(M(Cell::new(0)))
    }
}

fn main() {}
