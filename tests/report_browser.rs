//! The report in a real browser, at the widths of a phone and of a desk.
#![allow(clippy::unwrap_used)]

mod binary;
#[cfg(unix)]
mod browser;
mod sample_results;

#[cfg(unix)]
use browser::Browser;
use sample_results::{SampleResults, TWELVE};

/// A report of twelve methods, one of which failed once, and of needles.
fn report(folder: &std::path::Path) -> std::path::PathBuf {
    let sample = SampleResults {
        task: "needle",
        methods: TWELVE.to_vec(),
        budgets: vec![64, 512],
        layers: 12,
        ..SampleResults::default()
    };
    std::fs::create_dir(folder.join("results")).unwrap();
    sample.write(&folder.join("results"));
    binary::printed(folder, &["report", "results", "--out", "report.html"]);
    folder.join("report.html")
}

#[test]
#[cfg(unix)]
fn the_report_fits_sorts_prints_and_asks_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let page = report(folder.path());
    let Some(mut browser) = Browser::start(folder.path()) else {
        return;
    };
    for width in [390, 1200] {
        browser.open(&page, width);
        let overflow =
            "document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(
            browser.number(overflow),
            0.0,
            "the page is too wide at {width} px"
        );
        assert_eq!(browser.number("window.innerWidth"), f64::from(width));
        let outside = "[...document.querySelectorAll('h1,h2,p,dd,figure,svg,.box')]\
            .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5).length";
        assert_eq!(
            browser.number(outside),
            0.0,
            "something is cut off at {width} px"
        );
        // Lettering of a chart is 7 points on 3.4 inches of drawing.
        let lettering = "Math.min(...[...document.querySelectorAll('svg')]\
            .map(s => s.getBoundingClientRect().width / 3.4 * 7 / 72))";
        assert!(
            browser.number(lettering) >= 9.0,
            "lettering is too small at {width} px"
        );
        if let Some(target) = std::env::var_os("KVPROF_SCREENSHOTS") {
            browser.screenshot(&std::path::Path::new(&target).join(format!("{width}.png")));
        }
        sorts(&mut browser);
    }
    assert_eq!(
        browser.number("document.querySelectorAll('figure svg').length"),
        3.0
    );
    let unnamed = "[...document.querySelectorAll('table')].filter(t => !t.caption.textContent.trim() \
        || [...t.tHead.rows[0].cells].some(h => h.scope !== 'col') \
        || [...t.tBodies[0].rows].some(r => r.cells[0].scope !== 'row')).length";
    assert_eq!(
        browser.number(unnamed),
        0.0,
        "tables lack captions or scopes"
    );
    assert!(browser.prints_pdf(), "no PDF was printed");
    let requests = browser.requests();
    assert!(
        requests.iter().all(|url| url.starts_with("file:")),
        "{requests:?}"
    );
    assert_eq!(requests.len(), 2, "one load at each width: {requests:?}");
    assert!(
        browser.complaints().is_empty(),
        "{:?}",
        browser.complaints()
    );
}

/// Clicks heads of the first table and reads its rows back.
#[cfg(unix)]
fn sorts(browser: &mut Browser) {
    let column = |n: usize| {
        format!(
            "JSON.stringify([...document.querySelector('table').tBodies[0].rows].map(r => r.cells[{n}].textContent))"
        )
    };
    let head = |n: usize| format!("document.querySelector('table').tHead.rows[0].cells[{n}]");
    let read = |browser: &mut Browser, n: usize| -> Vec<String> {
        serde_json::from_str(&browser.text(&column(n))).unwrap()
    };
    let before = read(browser, 2);
    browser.click(&format!("{}.firstChild", head(2)));
    let means = |rows: &[String]| -> Vec<f64> { rows.iter().map(|t| t.parse().unwrap()).collect() };
    let up = means(&read(browser, 2));
    assert_ne!(means(&before), up, "the click moved nothing");
    assert!(up.is_sorted(), "{up:?}");
    assert_eq!(browser.text(&format!("{}.ariaSort", head(2))), "ascending");
    browser.click(&format!("{}.firstChild", head(2)));
    let down = means(&read(browser, 2));
    assert!(
        down.iter().rev().is_sorted() && down.len() == before.len(),
        "{down:?}"
    );
    assert_eq!(browser.text(&format!("{}.ariaSort", head(2))), "descending");
    browser.click(&format!("{}.firstChild", head(0)));
    let names = read(browser, 0);
    assert!(
        names.is_sorted() && names.contains(&"full".to_owned()),
        "{names:?}"
    );
    let state = format!("String({}.ariaSort)", head(2));
    assert_eq!(browser.text(&state), "null", "only one column is sorted");
}
