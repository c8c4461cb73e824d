//! Compiles the CUDA kernels to PTX where the feature `cuda` asks for them.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Capability that every card since 2020 has; PTX for it runs on all later ones.
const CAPABILITY: &str = "80";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(before_tensor_cores)");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return Ok(());
    }
    println!("cargo::rerun-if-changed=kernels");
    let variables = ["NVCC", "CUDA_HOME", "CUDA_PATH", "CUDA_COMPUTE_CAP"];
    for variable in variables {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let output = PathBuf::from(env::var("OUT_DIR")?);
    let capability = env::var("CUDA_COMPUTE_CAP").unwrap_or_else(|_| CAPABILITY.into());
    // Kernels that need their instructions end with an error there, and nobody launches them.
    if capability.parse::<u32>().is_ok_and(|own| own < 80) {
        println!("cargo::rustc-cfg=before_tensor_cores");
    }
    for entry in Path::new("kernels").read_dir()? {
        let source = entry?.path();
        if source.extension().is_some_and(|e| e == "cu") {
            compile(&source, &output, &capability)?;
        }
    }
    Ok(())
}

fn compile(source: &Path, output: &Path, capability: &str) -> Result<(), Box<dyn Error>> {
    let nvcc = nvcc();
    let name = source.file_stem().ok_or("a kernel without a name")?;
    let status = Command::new(&nvcc)
        .args(["--ptx", "-O3", "-std=c++17"])
        .arg(format!("-arch=compute_{capability}"))
        .arg("-o")
        .arg(output.join(name).with_extension("ptx"))
        .arg(source)
        .status()
        .map_err(|why| {
            let nvcc = nvcc.display();
            format!("{nvcc}: {why}; set NVCC or CUDA_HOME, or see scripts/setup_cuda.sh")
        })?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{} does not compile: {status}", source.display()).into()),
    }
}

/// The compiler that the environment names, or the one on the path.
fn nvcc() -> OsString {
    if let Some(nvcc) = env::var_os("NVCC") {
        return nvcc;
    }
    let homes = ["CUDA_HOME", "CUDA_PATH"]
        .into_iter()
        .filter_map(env::var_os);
    let found = homes.map(|home| Path::new(&home).join("bin/nvcc"));
    let found = found.into_iter().find(|nvcc| nvcc.exists());
    found.map_or_else(|| "nvcc".into(), PathBuf::into_os_string)
}
