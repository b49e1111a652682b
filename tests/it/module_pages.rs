//! docs/modules: a page for each module that ships, with a config to copy.

use std::fs;
use std::path::{Path, PathBuf};

use ganglion::{Config, registry};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/modules")
}

fn page(name: &str) -> String {
    fs::read_to_string(directory().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// `ganglion.modules.KeywordFilter` has the page `keyword-filter.md`.
fn page_of(path: &str) -> String {
    let class = path.rsplit('.').next().unwrap();
    let mut name = String::new();
    for (index, character) in class.char_indices() {
        if character.is_ascii_uppercase() && index > 0 {
            name.push('-');
        }
        name.push(character.to_ascii_lowercase());
    }
    name + ".md"
}

/// The blocks of YAML that are whole configs but for the homeserver's name.
fn configs(page: &str) -> Vec<&str> {
    let blocks = page.split("```yaml\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap());
    blocks
        .filter(|block| block.lines().any(|line| line == "modules:"))
        .collect()
}

#[test]
fn every_module_that_ships_has_a_page_with_a_config() {
    let index = page("README.md");
    for path in registry().paths().filter(|path| path.starts_with("ganglion.modules.")) {
        let name = page_of(path);
        assert!(index.contains(&format!("]({name})")), "{name} is not in the index");
        let page = page(&name);
        let configs = configs(&page);
        assert!(
            configs.iter().any(|config| config.contains(path)),
            "{name} has no config of {path}"
        );
    }
}

#[test]
fn every_config_of_the_pages_loads() {
    for entry in fs::read_dir(directory()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        for config in configs(&page(&name)) {
            let config = format!(
                "server_name: example.com\n{}",
                config.replace("server_name: example.com\n", "")
            );
            // What it names, such as files, need not be there before the module is made.
            if let Err(problems) = Config::from_yaml(&config, &name, &registry()) {
                panic!("{problems}\n{config}");
            }
        }
    }
}
