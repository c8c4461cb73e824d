//! The memory of evicted tokens is gone, as the system counts it. A process of its own: other tests
//! would allocate meanwhile.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor};
use kvprof::compute::memory::resident_bytes;
use kvprof::method::DECODE_ROOM;
use kvprof::model::attention::NoProbe;
use kvprof::model::cache::Representation;
use kvprof::model::precision::Precision;
use kvprof::model::{ModelHeader, source};

#[test]
fn cutting_the_cache_shrinks_the_process() {
    let cache = source::CacheFolder::from_env().unwrap();
    let files = source::resolve("smollm2-135m", &cache, &mut |_| ()).unwrap();
    let header = ModelHeader::open(files).unwrap();
    let room = header.weight_memory(&Device::Cpu, DType::F32);
    let model = header.load(&Device::Cpu, Precision::FLOAT32).unwrap();
    assert_eq!(room.held, model.decoder.weight_bytes().held);
    let ids: Vec<u32> = (0..2048).map(|i| 100 + i * 7 % 3000).collect();
    let mut cache = model.decoder.new_cache(ids.len()).unwrap();
    let prefilled: Tensor = model
        .decoder
        .prefill(&ids, &mut cache, 512, &mut NoProbe)
        .unwrap();
    drop(prefilled);
    let full = cache.bytes();
    assert_eq!(
        full,
        2048 * model
            .decoder
            .config()
            .cache_bytes_per_token(Representation::FLOAT32)
    );
    // What prefill itself has freed must not count.
    kvprof::compute::memory::return_freed();
    let before = resident_bytes().unwrap();
    // Heads of a layer and layers keep different numbers, 64 on average.
    let heads = [32, 64, 96];
    let layer = |l: usize| [0, 1, 2].map(|h| (0..heads[(h + l) % 3]).collect::<Vec<u32>>());
    let kept: Vec<Vec<Vec<u32>>> = (0..30).map(|l| layer(l).to_vec()).collect();
    cache.retain(&kept, DECODE_ROOM).unwrap();
    let after = resident_bytes().unwrap();
    let evicted = full - cache.allocated_bytes();
    let gone = before - after;
    assert!(
        gone * 50 >= evicted * 49 && gone * 49 <= evicted * 50,
        "{gone} bytes gone of {evicted} evicted"
    );
    let per_token = model
        .decoder
        .config()
        .cache_bytes_per_token(Representation::FLOAT32);
    assert_eq!(cache.bytes(), 64 * per_token);
    let room = DECODE_ROOM * per_token;
    assert_eq!(cache.allocated_bytes(), cache.bytes() + room);
    // Layer by layer: at no time two whole caches.
    let most = cache.most_allocated_bytes();
    assert!(
        most > full && most < full + full / 20,
        "{most} bytes at most of a cache of {full}"
    );
}
