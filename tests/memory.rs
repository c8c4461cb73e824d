//! The memory of evicted tokens is gone, as the system counts it. A process of its own: other tests
//! would allocate meanwhile.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor};
use kvprof::generate::DECODE_ROOM;
use kvprof::model::attention::NoProbe;
use kvprof::model::memory::resident_bytes;
use kvprof::model::{ModelHeader, source};

#[test]
fn cutting_the_cache_shrinks_the_process() {
    let cache = source::CacheFolder::from_env().unwrap();
    let files = source::resolve("smollm2-135m", &cache, &mut |_| ()).unwrap();
    let header = ModelHeader::open(files).unwrap();
    let room = header.weight_room(&Device::Cpu, DType::F32);
    let model = header.load(&Device::Cpu, DType::F32).unwrap();
    assert_eq!(room.held, model.decoder.weight_bytes().held);
    let ids: Vec<u32> = (0..2048).map(|i| 100 + i * 7 % 3000).collect();
    let mut cache = model.decoder.new_cache(ids.len()).unwrap();
    let prefilled: Tensor = model
        .decoder
        .prefill(&ids, &mut cache, 512, &mut NoProbe)
        .unwrap();
    drop(prefilled);
    let full = cache.bytes();
    assert_eq!(full, 2048 * model.decoder.config().cache_bytes_per_token(4));
    // What prefill itself has freed must not count.
    kvprof::model::memory::return_freed();
    let before = resident_bytes().unwrap();
    let kept = vec![vec![(0..64).collect(); 3]; 30];
    cache.retain(&kept, DECODE_ROOM).unwrap();
    let after = resident_bytes().unwrap();
    let evicted = full - cache.allocated_bytes();
    let gone = before - after;
    assert!(
        gone * 10 >= evicted * 9,
        "{gone} bytes gone of {evicted} evicted"
    );
    assert_eq!(
        cache.bytes(),
        64 * model.decoder.config().cache_bytes_per_token(4)
    );
    let room = DECODE_ROOM * model.decoder.config().cache_bytes_per_token(4);
    assert_eq!(cache.allocated_bytes(), cache.bytes() + room);
}
