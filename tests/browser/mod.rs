//! Chromium without a window, spoken to over its DevTools pipe: JSON messages, each ended by a zero byte.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// Set where a missing browser must fail the test instead of skipping it.
const REQUIRED: &str = "KVPROF_REQUIRE_BROWSER";

/// The shell hands the pipes to the browser as its descriptors 3 and 4.
const SCRIPT: &str = "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1";

const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
];

/// A running browser with one page.
pub struct Browser {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    session: Option<String>,
    sent: u64,
    events: Vec<Value>,
}

impl Browser {
    /// Starts Chromium with a profile of its own under `folder`; none where it is not installed.
    pub fn start(folder: &Path) -> Option<Self> {
        let found = ["chromium", "chromium-browser", "google-chrome"]
            .into_iter()
            .find(|name| {
                Command::new(name)
                    .arg("--version")
                    .output()
                    .is_ok_and(|o| o.status.success())
            });
        let Some(program) = found else {
            assert!(
                std::env::var_os(REQUIRED).is_none(),
                "{REQUIRED} is set, but there is no chromium"
            );
            // Not eprintln: the test harness would swallow it.
            let mut shown = std::io::stderr();
            writeln!(shown, "skipped: no chromium").unwrap();
            return None;
        };
        let data = format!("--user-data-dir={}", folder.join("browser").display());
        let mut process = Command::new("sh")
            .args(["-c", SCRIPT, "sh", program])
            .args(FLAGS)
            .arg(data)
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut browser = Self {
            input: process.stdin.take().unwrap(),
            output: BufReader::new(process.stdout.take().unwrap()),
            process,
            session: None,
            sent: 0,
            events: Vec::new(),
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Network", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    fn receive(&mut self) -> Value {
        let mut message = Vec::new();
        self.output.read_until(0, &mut message).unwrap();
        assert_eq!(message.pop(), Some(0), "the browser ended");
        serde_json::from_slice(&message).unwrap()
    }

    /// Sends a command and gives its result; events on the way are kept.
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.sent += 1;
        let mut message = json!({"id": self.sent, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.input
            .write_all(message.to_string().as_bytes())
            .unwrap();
        self.input.write_all(&[0]).unwrap();
        self.input.flush().unwrap();
        loop {
            let mut answer = self.receive();
            if answer["id"] == json!(self.sent) {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
            self.events.push(answer);
        }
    }

    /// Loads `page` on a screen of `width` pixels, which is a phone's where it is narrow.
    pub fn open(&mut self, page: &Path, width: u32) {
        let screen =
            json!({"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", screen);
        let known = self.events.len();
        self.call(
            "Page.navigate",
            json!({"url": format!("file://{}", page.display())}),
        );
        while !self.events[known..]
            .iter()
            .any(|e| e["method"] == "Page.loadEventFired")
        {
            let event = self.receive();
            self.events.push(event);
        }
    }

    fn evaluate(&mut self, script: &str) -> Value {
        let mut answer = self.call(
            "Runtime.evaluate",
            json!({"expression": script, "returnByValue": true}),
        );
        assert!(answer["exceptionDetails"].is_null(), "{script}: {answer}");
        answer["result"]["value"].take()
    }

    /// What a script gives, as a number.
    pub fn number(&mut self, script: &str) -> f64 {
        self.evaluate(script).as_f64().unwrap()
    }

    /// What a script gives, as text.
    pub fn text(&mut self, script: &str) -> String {
        self.evaluate(script).as_str().unwrap().to_owned()
    }

    /// Presses and releases the mouse in the middle of what `element` gives, after scrolling there.
    pub fn click(&mut self, element: &str) {
        let place = format!(
            "(() => {{ const e = {element}; e.scrollIntoView({{block: 'center', inline: 'center'}}); \
             const b = e.getBoundingClientRect(); \
             return JSON.stringify([b.x + b.width / 2, b.y + b.height / 2]); }})()"
        );
        let [x, y]: [f64; 2] = serde_json::from_str(&self.text(&place)).unwrap();
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Whether printing gives a PDF.
    pub fn prints_pdf(&mut self) -> bool {
        let printed = self.call("Page.printToPDF", json!({"preferCSSPageSize": true}));
        // "%PDF-1." in base64.
        printed["data"]
            .as_str()
            .is_some_and(|data| data.starts_with("JVBERi0xL") && data.len() > 10_000)
    }

    /// Writes the whole page as a picture, for people.
    pub fn screenshot(&mut self, target: &Path) {
        let parameters = json!({"format": "png", "captureBeyondViewport": true});
        let picture = self.call("Page.captureScreenshot", parameters);
        std::fs::write(
            target.with_extension("base64"),
            picture["data"].as_str().unwrap(),
        )
        .unwrap();
    }

    fn parameters_of(&self, method: &str) -> Vec<&Value> {
        let of_method = self.events.iter().filter(|event| event["method"] == method);
        of_method.map(|event| &event["params"]).collect()
    }

    /// Everything that was asked for, data within the page aside.
    pub fn requests(&self) -> Vec<String> {
        let sent = self.parameters_of("Network.requestWillBeSent");
        let urls = sent
            .iter()
            .map(|p| p["request"]["url"].as_str().unwrap().to_owned());
        urls.filter(|url| !url.starts_with("data:") && url != "about:blank")
            .collect()
    }

    /// Exceptions and warnings, among them whatever the page's own policy refused.
    pub fn complaints(&self) -> Vec<String> {
        let thrown = self.parameters_of("Runtime.exceptionThrown");
        let logged = self.parameters_of("Log.entryAdded");
        thrown
            .iter()
            .chain(&logged)
            .map(|p| p.to_string())
            .collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It has the profile folder open, which is about to go.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
