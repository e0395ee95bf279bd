//! The vendors' run-time compilers and drivers, where they are here: these need no card. NVRTC is a
//! package of the test's extra; `MODGRAD_LIBRARIES` or the repository's `.venv` has it.

use std::path::{Path, PathBuf};

use modgrad_device::vendor::{cards, compile_all};

/// `.venv/lib/python3.…/site-packages/nvidia`.
fn folders() -> Vec<PathBuf> {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/lib");
    let Ok(entries) = std::fs::read_dir(venv) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path().join("site-packages/nvidia")).collect()
}

fn check(flag: &str, architecture: &str) {
    match compile_all(flag, architecture, &folders()) {
        Ok(compiler) => println!("compiled for {architecture} with {compiler}"),
        Err(error) => {
            let said = error.to_string();
            assert!(said.contains("is not here; hint: "), "{said}");
            println!("not compiled for {architecture}: {said}");
        }
    }
}

#[test]
fn every_source_compiles_with_nvrtc() {
    for architecture in ["sm_80", "sm_90"] {
        check("cuda", architecture);
    }
}

#[test]
fn an_architecture_that_nvrtc_does_not_know_is_named() {
    let said = compile_all("cuda", "sm_31", &folders()).unwrap_err().to_string();
    let unknown = said.contains("the card is sm_31") && said.contains("hint: ");
    assert!(unknown || said.contains("is not here"), "{said}");
}

#[test]
fn every_source_compiles_with_hiprtc() {
    check("hip", "gfx1030");
}

/// As Debian's libamdhip64, which can be installed anywhere.
#[test]
fn drivers_have_every_function_that_is_called() {
    for flag in ["cuda", "hip"] {
        match cards(flag, &folders()) {
            Ok(cards) => println!("{flag}: all functions are there, {} cards", cards.len()),
            Err(error) => {
                let said = error.to_string();
                assert!(said.contains("is not here; hint: "), "{said}");
            }
        }
    }
}
