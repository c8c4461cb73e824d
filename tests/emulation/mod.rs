//! Runs programs of `compute::device` on a CPU: the same launches of the same sources, compiled as C++.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use kvprof::compute::device::{Argument, Buffer, Program};

/// The compiled emulator; none where there is no C++ compiler.
pub fn emulator() -> Option<&'static PathBuf> {
    static EMULATOR: OnceLock<Option<PathBuf>> = OnceLock::new();
    EMULATOR.get_or_init(compile).as_ref()
}

fn compile() -> Option<PathBuf> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("kernels/emulation");
    let emulator = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("emulate_kernels");
    let output = Command::new(compiler)
        .args([
            "-std=c++17",
            "-O2",
            "-ffp-contract=off",
            "-U_FORTIFY_SOURCE",
        ])
        // Loads of several elements trap where a device would not take their address.
        .args(["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"])
        .args([
            "-Wall",
            "-Wextra",
            "-Wno-unknown-pragmas",
            "-DKVPROF_EMULATED",
            "-o",
        ])
        .arg(&emulator)
        .arg(folder.join("emulate.cpp"))
        .output()
        .ok()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "the kernels do not compile as C++: {errors}"
    );
    Some(emulator)
}

/// What a caller gives for an operand.
#[derive(Clone)]
pub enum Operand {
    /// Memory that holds something.
    Holding(Vec<u8>),
    /// Memory of so many bytes, of anything.
    Empty(usize),
}

/// Runs a program; the operands as they are afterwards.
///
/// Panics: where the emulator finds fault with the program or a kernel.
pub fn run(program: &Program, operands: &[Operand], schedule: u32) -> Vec<Vec<u8>> {
    let input = encoded(program, operands, schedule);
    let mut child = Command::new(emulator().unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that finds fault stops reading.
    let sent = child.stdin.take().unwrap().write_all(&input);
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let status = output.status;
    assert!(
        status.success(),
        "{status} under schedule {schedule}: {errors}"
    );
    sent.unwrap();
    let mut rest = output.stdout.as_slice();
    operands
        .iter()
        .map(|operand| {
            let (own, after) = rest.split_at(operand.bytes());
            rest = after;
            own.to_vec()
        })
        .collect()
}

impl Operand {
    fn bytes(&self) -> usize {
        match self {
            Self::Holding(bytes) => bytes.len(),
            Self::Empty(bytes) => *bytes,
        }
    }
}

fn encoded(program: &Program, operands: &[Operand], schedule: u32) -> Vec<u8> {
    let mut input = Vec::new();
    let number =
        |n: usize, input: &mut Vec<u8>| input.extend(u32::try_from(n).unwrap().to_le_bytes());
    number(schedule as usize, &mut input);
    number(operands.len() + program.scratch.len(), &mut input);
    for operand in operands {
        input.extend((operand.bytes() as u64).to_le_bytes());
        match operand {
            Operand::Holding(bytes) => {
                input.push(1);
                input.extend(bytes);
            }
            Operand::Empty(_) => input.push(0),
        }
    }
    for &bytes in &program.scratch {
        input.extend((bytes as u64).to_le_bytes());
        input.push(0);
    }
    number(program.launches.len(), &mut input);
    for launch in &program.launches {
        number(launch.kernel.len(), &mut input);
        input.extend(launch.kernel.as_bytes());
        let [x, y] = launch.grid;
        for n in [x, y, 1, launch.threads, launch.shared] {
            input.extend(n.to_le_bytes());
        }
        number(launch.arguments.len(), &mut input);
        for argument in &launch.arguments {
            encode_argument(argument, operands.len(), &mut input);
        }
    }
    input
}

fn encode_argument(argument: &Argument, operands: usize, input: &mut Vec<u8>) {
    let (kind, bytes) = match argument {
        Argument::Address(buffer, offset) => {
            let buffer = match buffer {
                Buffer::Operand(i) => *i,
                Buffer::Scratch(i) => operands + i,
            };
            let [buffer, offset] = [buffer, *offset].map(|n| (n as u32).to_le_bytes());
            (b'b', [buffer, offset].concat())
        }
        Argument::U32(n) => (b'u', [n.to_le_bytes(), [0; 4]].concat()),
        Argument::F32(x) => (b'f', [x.to_le_bytes(), [0; 4]].concat()),
        Argument::F64(x) => (b'd', x.to_le_bytes().to_vec()),
        Argument::Eight(numbers) => (b't', numbers.iter().flat_map(|x| x.to_le_bytes()).collect()),
    };
    input.push(kind);
    input.extend(bytes);
}
