//! Two levels of precision on every family.

use kvprof::budget::Geometry;
use kvprof::method::{Method, observe};

use crate::family_models::{each, prompt};
use crate::{FLOOR, T, window};

/// With sixteen bits and thresholds of 0 nothing is lost but what float16 loses; layers with a window are refused.
#[test]
fn sixteen_bits_at_the_high_level_are_the_float16_cache() {
    let levels = "full+leankv(fixed=true,prune=0,demote=0,window=3,high=k16v16,low=k8v8)";
    let methods = ["full+cache(f16)", levels].map(|text| Method::parse(text).unwrap());
    each(|name, model| {
        let layers = model.decoder.config().num_hidden_layers();
        if (0..layers).any(|layer| window(model, layer).is_some()) {
            let said = methods[1].check_geometry(&Geometry::of_model(model));
            let said = said.unwrap_err().to_string();
            assert!(said.contains("all see the whole prompt"), "{name}: {said}");
            return;
        }
        let observed = observe(model, &prompt(T), 8, &methods, FLOOR).unwrap();
        let kept = observed.cache.slots_in_sight();
        let steps = |method: &Method| -> Vec<Vec<u32>> {
            let mut live = observed.cut(method, &kept, None, 8).unwrap();
            let step = |id: u32| {
                let logits = live.step(&model.decoder, id).unwrap();
                let logits = logits.to_vec1::<f32>().unwrap();
                logits.iter().map(|x| x.to_bits()).collect()
            };
            (3..9).map(step).collect()
        };
        assert_eq!(steps(&methods[0]), steps(&methods[1]), "{name}");
    });
}
