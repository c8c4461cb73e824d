//! The CUDA kernels under CUDA's own compiler: no warnings, nothing spilled, and no launch that a device would refuse.
//! Needs no GPU; says so where there is no compiler.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use candle_core::{DType, Device};
use kvprof::compute::device::{
    AddRows, CountsToMass, FallingOrder, GroupReduce, LargestEntries, Order, PoolRows, Pooling,
    PrefixSums, Program, Quotas, RowPooling, RunningSums,
};
use kvprof::model::attention::device::{PrefillAttention, RaggedAttention, WIDEST_HEAD};
use kvprof::model::ragged_heads::{RaggedHead, RaggedHeads};

/// Capabilities: what the PTX of a build is for at least, and the cards of the day.
const CAPABILITIES: [u32; 2] = [80, 90];

/// Of one block, on every device.
const REGISTERS: u32 = 65_536;
const SHARED_BYTES: u32 = 48 * 1024;

/// What a launch may ask for above that, on every device from capability 8.0 on.
const MOST_SHARED_BYTES: u32 = 99 * 1024;

/// What a thread or block of a kernel takes, as the assembler reports it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Resources {
    spilled: u32,
    registers: u32,
    shared: u32,
}

/// The compiler that the environment names, or the one on the path.
fn nvcc() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("NVCC") {
        return Some(named.into());
    }
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter();
    let homes = homes.filter_map(std::env::var_os);
    let mut named = homes.map(|home| Path::new(&home).join("bin/nvcc"));
    named.find(|nvcc| nvcc.exists()).or_else(|| {
        let found = Command::new("nvcc").arg("--version").output().is_ok();
        found.then(|| "nvcc".into())
    })
}

/// Reports on every kernel, by name and capability; none where there is no compiler.
fn compiled() -> Option<&'static HashMap<(String, u32), Resources>> {
    static COMPILED: OnceLock<Option<HashMap<(String, u32), Resources>>> = OnceLock::new();
    let compile = || {
        let nvcc = nvcc()?;
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let mut found = HashMap::new();
        for entry in folder.read_dir().unwrap() {
            let source = entry.unwrap().path();
            if source.extension().is_some_and(|e| e == "cu") {
                found.extend(reports(&said_by(&nvcc, &source)));
            }
        }
        Some(found)
    };
    let compiled = COMPILED.get_or_init(compile).as_ref();
    if compiled.is_none() {
        eprintln!("skipped: no nvcc");
    }
    compiled
}

/// What the compiler says about a source, which has to compile without a warning.
fn said_by(nvcc: &Path, source: &Path) -> String {
    let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join(source.file_stem().unwrap());
    let codes = CAPABILITIES.map(|c| format!("-gencode=arch=compute_{c},code=sm_{c}"));
    let ran = Command::new(nvcc)
        .args(["--fatbin", "-O3", "-std=c++17"])
        .args(codes)
        .args(["-Werror", "all-warnings", "-Xptxas", "-v"])
        .arg("-o")
        .arg(output.with_extension("fatbin"))
        .arg(source)
        .output()
        .unwrap_or_else(|why| panic!("{}: {why}", nvcc.display()));
    let said = String::from_utf8_lossy(&ran.stderr) + String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success() && !said.contains("warning"),
        "{}: {said}",
        source.display()
    );
    said.into_owned()
}

/// The number in front of a word, of a line such as `Used 40 registers, 16 bytes smem`; 0 where it is not named.
fn number_before(line: &str, word: &str) -> u32 {
    let named = line.split(',').find(|part| part.contains(word));
    let number = named.and_then(|part| part.split_whitespace().find_map(|n| n.parse().ok()));
    number.unwrap_or(0)
}

fn reports(said: &str) -> HashMap<(String, u32), Resources> {
    let mut found = HashMap::new();
    let mut kernel = None;
    for line in said.lines() {
        if line.contains("Compiling entry function") {
            let [name, capability] = [1, 3].map(|i| line.split('\'').nth(i).unwrap());
            let capability = capability.strip_prefix("sm_").unwrap().parse().unwrap();
            kernel = Some((name.to_owned(), capability));
            found.insert(kernel.clone().unwrap(), Resources::default());
        }
        let Some(own) = kernel.as_ref().and_then(|kernel| found.get_mut(kernel)) else {
            continue;
        };
        if line.contains("spill stores") {
            let spilled = ["spill stores", "spill loads"].map(|what| number_before(line, what));
            own.spilled = spilled.iter().sum();
        } else if line.contains("registers") {
            own.registers = number_before(line, "registers");
            own.shared = number_before(line, "bytes smem");
        }
    }
    found
}

#[test]
fn kernels_compile_without_warnings_or_spills() {
    let Some(compiled) = compiled() else { return };
    assert!(!compiled.is_empty());
    for (kernel, resources) in compiled {
        assert!(resources.registers > 0, "{kernel:?} is not reported");
        assert_eq!(resources.spilled, 0, "bytes spilled by {kernel:?}");
    }
}

/// Launches of the largest blocks that each operation asks for.
fn largest_blocks() -> Vec<Program> {
    let mut programs = Vec::new();
    for keys in [1, 2048, 6000, 1 << 20] {
        programs.push(CountsToMass::new((4, 2, keys), &[0.9; 9]).unwrap().program);
    }
    let sums = AddRows::new((2, 9), (2, 3, 9), 0, 3).unwrap();
    programs.push(sums.program);
    programs.push(RunningSums::new((5000, 200)).unwrap().program);
    let head = RaggedHead {
        start: 0,
        length: 3000,
    };
    let heads = RaggedHeads::new(&[head], 0, &Device::Cpu).unwrap();
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        for d in [
            1,
            64,
            128,
            256,
            WIDEST_HEAD - 2,
            WIDEST_HEAD - 1,
            WIDEST_HEAD,
        ] {
            let dims = [(8, d), (3000, d)];
            let op = RaggedAttention::new(&heads, dims, dtype, 0, [0, 0]).unwrap();
            programs.push(op.program);
        }
    }
    let prefilled = [head];
    for dtype in [DType::F16, DType::BF16] {
        for d in [64, 80, 96, 128, 256] {
            let types = [dtype, DType::F32];
            let (queries, keys) = ((8, 100, d), (3000, d));
            let op = PrefillAttention::new(&prefilled, queries, keys, types, &Device::Cpu);
            programs.push(op.unwrap().program);
        }
    }
    programs.push(PrefixSums::new((9, 5000)).unwrap().program);
    for dtype in [DType::F32, DType::F64] {
        programs.push(FallingOrder::new((2, 9000), dtype).unwrap().program);
    }
    let pooling = RowPooling {
        rows: 4,
        group: GroupReduce::Mean,
        prefix: 9000,
        pooling: Pooling::Max,
        kernel: 7,
        order: Order::PoolFirst,
    };
    programs.push(PoolRows::new((8, 9000), pooling).unwrap().program);
    let wanted = Quotas {
        own: vec![100; 8],
        shared: 50,
        sinks: 4,
        window: 32,
    };
    programs.push(LargestEntries::new((8, 9000), &wanted).unwrap().program);
    programs
}

#[test]
fn every_launch_fits_a_device() {
    let Some(compiled) = compiled() else { return };
    for launch in largest_blocks().into_iter().flat_map(|p| p.launches) {
        for capability in CAPABILITIES {
            let kernel = (launch.kernel.to_owned(), capability);
            let resources = compiled.get(&kernel);
            let own = resources.unwrap_or_else(|| panic!("{kernel:?} is in no source"));
            // Registers are given to warps in eights.
            let registers = own.registers.next_multiple_of(8) * launch.threads;
            assert!(registers <= REGISTERS, "{kernel:?}: {registers} registers");
            let shared = own.shared + launch.shared;
            let most = match launch.shared > SHARED_BYTES {
                true => MOST_SHARED_BYTES,
                false => SHARED_BYTES,
            };
            assert!(shared <= most, "{kernel:?}: {shared} bytes shared");
        }
    }
}

#[test]
fn reports_of_the_assembler_are_read() {
    let said = "ptxas info    : Compiling entry function 'sort' for 'sm_90'\n\
                ptxas info    : Function properties for sort\n    \
                64 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads\n\
                ptxas info    : Used 40 registers, used 1 barriers, 64 bytes cumulative stack size, 2144 bytes smem, 8 bytes cmem[2]\n";
    let want = Resources {
        spilled: 32,
        registers: 40,
        shared: 2144,
    };
    assert_eq!(reports(said), HashMap::from([(("sort".into(), 90), want)]));
}
