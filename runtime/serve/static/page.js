// The page of an inspection: asks for the state once a second and for live pictures as they come.

const POLL_MS = 1000;
const RETRY_MS = 1000;
const CHANGES_MS = 5000;
const HEADERS = { "X-Requested-By": "cflow-edge" };
const $ = (id) => document.getElementById(id);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

let report = null; // the last answer of /api/state
let points = []; // [number, time, source, score or null, threshold, verdict: 0 good, 1 anomalous, 2 none, recipe], oldest first
let range = "recent";
let shown = 0; // number of the source in the live view
let lastPicture = 0; // number of the judgement in the live view
let recipeShown = null; // the name of the recipe in the last report
let marking = { kept: false, why: "", marks: [] }; // the last answer of /api/marks
let liveShown = { number: 0, verdict: "none" }; // the judgement of the live picture
let tried = null; // the threshold on the slider, null while it is the present one

const NUMBER = new Intl.NumberFormat("en-GB");
const count = (n) => NUMBER.format(n);
const score = (x) => (x === 0 ? "0" : Math.abs(x) < 0.001 ? x.toPrecision(3) : x.toFixed(Math.abs(x) < 0.1 ? 4 : 3));
const clock = (s, seconds = true) =>
  new Date(s * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", ...(seconds && { second: "2-digit" }) });
const day = (s) => {
  const date = new Date(s * 1000);
  const today = date.toDateString() === new Date().toDateString();
  return today ? "" : `${date.toLocaleDateString("en-GB", { day: "numeric", month: "short" })}, `;
};

function text(id, value) {
  if ($(id).textContent !== value) $(id).textContent = value;
}

function element(name, content = "", state = "") {
  const made = document.createElement(name);
  made.textContent = content;
  if (state) made.dataset.state = state;
  return made;
}

// Whether a list has other entries than `names`: the inspection may have been started anew, with as many of others.
function changed(list, names) {
  return list.childElementCount !== names.length || names.some((name, i) => list.children[i].textContent !== name);
}

function signIn() {
  location.assign("/login");
}

// ---- the state, once a second ----

async function ask() {
  const since = points.length ? points.at(-1)[0] : 0;
  const response = await fetch(`/api/state?since=${since}${range === "day" ? "&minutes=1" : ""}`, { signal: AbortSignal.timeout(8000) });
  if (response.status === 401) return signIn();
  if (!response.ok) throw new Error(response.statusText);
  const answer = await response.json();
  if (report && report.run !== answer.run) {
    points = []; // the inspection was started anew
    lastPicture = 0;
    report = null;
    return ask();
  }
  const last = points.length ? points.at(-1)[0] : 0; // another answer may have come meanwhile
  points = points.concat(answer.points.filter((point) => point[0] > last)).slice(-answer.recent);
  report = answer;
  show();
}

async function askChanges() {
  const response = await fetch("/api/audit", { signal: AbortSignal.timeout(8000) });
  if (response.ok) showChanges(await response.json());
}

async function askMarks() {
  const response = await fetch("/api/marks", { signal: AbortSignal.timeout(8000) });
  if (!response.ok) return;
  marking = await response.json();
  showMarks();
}

async function poll() {
  let asked = -Infinity; // when the changes were asked for
  for (;;) {
    if (!document.hidden) {
      try {
        await ask();
        if (performance.now() - asked > CHANGES_MS) {
          asked = performance.now();
          await askChanges();
          await askMarks();
        }
      } catch {
        text("health", "No connection");
        $("health").dataset.state = "failing";
      }
    }
    await pause(POLL_MS);
  }
}

function show() {
  showHeader();
  showDrift();
  showRecipe();
  showTabs();
  showTrial();
  drawChart();
  showAnomalies();
  showParts();
  showShadow();
  showTables();
}

function showHeader() {
  text("engine", report.engine);
  document.title = `${report.engine} – inspection`;
  const { ok, reason } = report.health;
  text("health", ok ? "Inspecting" : reason[0].toUpperCase() + reason.slice(1));
  $("health").dataset.state = ok ? "ok" : "failing";
  text("fps", report.fps.toFixed(1));
  text("device", report.device);
  showCheck();
  $("sign-out").hidden = !report.sign_in;
  const { good, anomalous, none } = report.counts;
  text("good", count(good));
  text("anomalous", count(anomalous));
  text("none", count(none));
  const share = anomalous / (good + anomalous);
  text("share", good + anomalous ? `${(100 * share).toFixed(share < 0.1 ? 2 : 1)} %` : "–");
}

function showCheck() {
  const { check } = report; // of reference parts; null where the line goes by none
  $("check").hidden = !check;
  if (!check) return;
  const minutes = Math.max(0, Math.round(check.due_s / 60));
  const due = minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
  text("check", check.reason ? `No verdicts: ${check.reason}` : `Next check in ${due}`);
  $("check").dataset.state = check.reason || check.due_s < 1800 ? "failing" : "ok";
}

let driftShown = "";

function showDrift() {
  const alarms = report.drift?.alarms ?? []; // null where nobody watches for drift
  $("drift").hidden = !alarms.length && !$("drift-said").textContent;
  const now = JSON.stringify(alarms);
  if (now === driftShown) return; // what somebody is about to press stays
  driftShown = now;
  $("drift-alarms").replaceChildren(
    ...alarms.map((alarm) => {
      const item = element("li", alarm.text + (alarm.acknowledged_by ? `; acknowledged by ${alarm.acknowledged_by}` : ""));
      item.dataset.state = alarm.acknowledged_by ? "known" : "new";
      const press = (words, renew) => {
        const button = element("button", words);
        button.addEventListener("click", () => acknowledge(alarm, renew));
        item.append(button);
      };
      if (!alarm.acknowledged_by) press("Acknowledge", false);
      press("This is the new normal", true);
      return item;
    }),
  );
}

async function acknowledge(alarm, renew) {
  const name = $("drift-name").value;
  if (name) localStorage.setItem("name", name);
  try {
    const said = { alarm: alarm.number, new_normal: renew, ...(name ? { name } : {}) };
    const response = await send("/api/drift", said);
    if (response.status === 401) return signIn();
    text("drift-said", renew ? "Later frames are held against those of now." : "Acknowledged; it stands until the frames are as before.");
    await Promise.all([ask(), askChanges()]);
  } catch (error) {
    text("drift-said", `Not acknowledged: ${error.message}`);
  }
  setTimeout(() => text("drift-said", ""), 8000);
}

function showRecipe() {
  const { recipe } = report;
  $("recipes").hidden = !recipe;
  if (!recipe) return;
  text("recipe-name", recipe.name);
  const choice = $("recipe-choice");
  const others = changed(choice, recipe.names);
  if (others) {
    choice.replaceChildren(...recipe.names.map((name) => Object.assign(element("option", name), { value: name })));
  }
  if (others || recipeShown !== recipe.name) {
    choice.value = recipe.name;
    if (recipeShown !== null && recipeShown !== recipe.name) tried = null; // a threshold was tried on what the other one judged
    recipeShown = recipe.name;
  }
  $("recipe-use").disabled = choice.value === recipe.name;
}

async function useRecipe() {
  const recipe = $("recipe-choice").value;
  $("recipe-use").disabled = true;
  let words = `${recipe} judges from the next frame on.`;
  try {
    const response = await send("/api/recipe", { recipe });
    if (response.status === 401) return signIn();
    await ask();
  } catch (error) {
    words = `Not changed: ${error.message}`;
  }
  text("recipe-said", words);
  showRecipe();
}

// An action: its answer, or an error with the words of the refusal.
async function send(address, body) {
  const response = await fetch(address, {
    method: "POST",
    headers: { ...HEADERS, "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (response.ok || response.status === 401) return response;
  const told = response.headers.get("Content-Type").startsWith("application/json");
  throw new Error(told ? (await response.json()).error : await response.text());
}

// Of the picture that is shown, not of the newest report: the words fit what is seen.
function showVerdict(headers, wanted) {
  const verdict = headers.get("X-Verdict");
  const value = headers.get("X-Score") ? score(Number(headers.get("X-Score"))) : "–";
  const reason = decodeURIComponent(headers.get("X-Reason") ?? "");
  const words = { good: "● Good", anomalous: "▲ Anomalous", none: `■ No verdict: ${reason}` };
  $("verdict").dataset.verdict = verdict;
  text("verdict-word", words[verdict]);
  text("score", value);
  text("threshold", score(Number(headers.get("X-Threshold"))));
  $("picture").setAttribute("aria-label", `Live picture of ${report.source_names[wanted]}: ${verdict === "none" ? `no verdict, ${reason}` : verdict}, score ${value}`);
}

function showTabs() {
  const names = report.source_names;
  $("tabs").hidden = names.length < 2;
  if (changed($("tabs"), names)) {
    shown = Math.max(0, Math.min(shown, names.length - 1));
    $("tabs").replaceChildren(
      ...names.map((name, number) => {
        const tab = element("button", name);
        tab.className = "tab";
        tab.addEventListener("click", () => {
          shown = number;
          lastPicture = 0;
          watching?.abort();
          show();
        });
        return tab;
      }),
    );
  }
  [...$("tabs").children].forEach((tab, number) => tab.setAttribute("aria-pressed", String(number === shown)));
}

function row(...cells) {
  const made = document.createElement("tr");
  made.append(...cells);
  return made;
}

function showTables() {
  $("sources").replaceChildren(
    ...report.sources.map((source) => {
      const { up } = source;
      const word = up ? (source.live ? "Live" : "Reading") : source.state[0].toUpperCase() + source.state.slice(1);
      const state = element("td", word, up ? "" : "failing");
      if (source.reconnects) state.append(element("small", `${count(source.reconnects)} × reconnected`));
      const dropped = element("td", count(source.dropped));
      for (const word of ["incomplete", "missing"]) {
        if (source[word]) dropped.append(element("small", `${count(source[word])} ${word}`, "failing"));
      }
      return row(element("td", source.name), state, dropped);
    }),
  );
  $("sink-table").hidden = !report.sinks.length;
  $("sinks").replaceChildren(
    ...report.sinks.map((sink) => {
      const name = element("td", sink.name);
      if (sink.last_error) name.append(element("small", sink.last_error));
      const bad = (n) => element("td", count(n), n ? "failing" : "");
      return row(name, element("td", count(sink.delivered)), bad(sink.lost), bad(sink.failed));
    }),
  );
  const { triggers } = report;
  $("trigger-table").hidden = !triggers;
  if (triggers) {
    const bad = (n) => element("td", count(n), n ? "failing" : "");
    const answer = triggers.p99_ms === null ? "–" : triggers.p99_ms.toFixed(2);
    const taken = element("td", count(triggers.taken));
    for (const [number, words] of [[triggers.unnamed, "without an id"], [triggers.unused, "ids unused"]]) {
      if (number) taken.append(element("small", `${count(number)} ${words}`, "failing"));
    }
    const cells = [taken, bad(triggers.late), bad(triggers.lost), bad(triggers.refused)];
    $("triggers").replaceChildren(row(...cells, element("td", answer)));
  }
  $("stages").replaceChildren(
    ...Object.entries(report.latency_ms).map(([stage, values]) =>
      row(element("td", stage.replaceAll("_", " ")), ...values.map((ms) => element("td", ms.toFixed(2)))),
    ),
  );
}

const short = (value) => (/^[0-9a-f]{64}$/.test(value) ? value.slice(0, 12) : value || "–"); // a SHA-256

function showChanges({ kept, changes }) {
  $("changes").hidden = !kept;
  $("change-rows").replaceChildren(
    ...changes.map((change) => {
      const what = element("td", change.what);
      const at = Date.parse(change.time) / 1000;
      what.append(element("small", `${day(at)}${clock(at)}, ${change.who}, ${change.origin}`));
      return row(what, element("td", short(change.old)), element("td", short(change.new)));
    }),
  );
}

function showParts() {
  $("parts").hidden = !report.parts.length;
  $("part-rows").replaceChildren(
    ...report.parts.map((part) => {
      const verdict = element("td", part.verdict === "none" ? "no verdict" : part.verdict, part.verdict === "good" ? "" : "failing");
      if (part.reason) verdict.append(element("small", part.reason));
      for (const one of part.parts) {
        if (one.verdict !== "good") verdict.append(element("small", `${one.name}: ${one.verdict === "none" ? "no verdict" : one.verdict}`));
      }
      const name = element("td", part.part);
      if (part.recipe) name.append(element("small", part.recipe));
      const correction = document.createElement("td");
      const button = element("button");
      button.className = "mark";
      showMark(button, part);
      correction.append(button);
      return row(name, verdict, element("td", part.score === null ? "–" : score(part.score)), element("td", part.answer_ms.toFixed(1)), correction);
    }),
  );
}

// ---- live pictures: one request at a time, so a slow line sees fewer and never late ones ----

let watching = null;

async function watch() {
  const canvas = $("picture");
  for (;;) {
    if (document.hidden || !report) {
      await pause(200);
      continue;
    }
    watching = new AbortController();
    const wanted = shown;
    try {
      const response = await fetch(`/live/${wanted}.jpg?after=${lastPicture}`, { signal: watching.signal });
      if (response.status === 401) return signIn();
      if (response.status === 200) {
        const picture = await createImageBitmap(await response.blob());
        if (wanted !== shown) continue;
        lastPicture = Number(response.headers.get("X-Frame-Number"));
        if (canvas.width !== picture.width || canvas.height !== picture.height) {
          canvas.width = picture.width;
          canvas.height = picture.height;
        }
        canvas.getContext("2d").drawImage(picture, 0, 0);
        picture.close();
        showVerdict(response.headers, wanted);
        liveShown = { number: lastPicture, verdict: response.headers.get("X-Verdict") };
        showMark($("mark-live"), liveShown);
        $("no-picture").hidden = true;
      } else if (response.status !== 204) {
        await pause(RETRY_MS);
      }
    } catch (error) {
      if (error.name !== "AbortError") await pause(RETRY_MS);
    }
  }
}

// ---- the chart ----

function highest() {
  let top = 0;
  for (const point of points) if (point[3] > top) top = point[3];
  return top;
}

function drawChart() {
  const canvas = $("chart");
  const scale = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (!width) return;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`);
  const size = parseFloat(style.fontSize) * 0.8;
  pen.font = `${size}px ${style.fontFamily}`;
  const area = { left: 3.6 * size, top: size, right: width - 4, bottom: height - 1.9 * size };

  const daily = range === "day";
  const data = daily
    ? (report.minutes ?? []).filter(([, low]) => low !== null).map(([t, low, high, , bad]) => [t + 30, low, high, bad])
    : points.filter((point) => point[3] !== null).map((point) => [point[1], point[3], point[3], point[5] === 1]);
  const end = daily ? report.now : (data.at(-1)?.[0] ?? report.now);
  const begin = daily ? end - 86400 : Math.min(data[0]?.[0] ?? end - 60, end - 1);
  const limit = report.threshold.value;
  const top = 1.12 * Math.max(limit, tried ?? 0, ...(daily ? data.map((d) => d[2]) : [highest()]), 1e-9);
  const x = (t) => area.left + ((t - begin) / (end - begin)) * (area.right - area.left);
  const y = (s) => area.bottom - (s / top) * (area.bottom - area.top);

  drawAxes(pen, area, { begin, end, top, y, size, daily, colour });
  drawScores(pen, data, { x, y, daily, colour, area });
  if (!daily) drawThresholdsOf(pen, { x, y, colour });
  const line = (value, name, dash, words) => {
    pen.strokeStyle = pen.fillStyle = colour(name);
    pen.lineWidth = 1.5;
    pen.setLineDash(dash);
    pen.beginPath();
    pen.moveTo(area.left, y(value));
    pen.lineTo(area.right, y(value));
    pen.stroke();
    pen.setLineDash([]);
    pen.textAlign = "right";
    const width = pen.measureText(words).width;
    const above = y(value) - 0.4 * size;
    pen.fillStyle = colour("card");
    pen.globalAlpha = 0.8;
    pen.fillRect(area.right - width - 4, above - 0.9 * size, width + 4, 1.15 * size);
    pen.globalAlpha = 1;
    pen.fillStyle = colour(name);
    pen.fillText(words, area.right - 2, above);
  };
  line(limit, "bad", [], `threshold ${score(limit)}`);
  if (tried !== null) line(tried, "accent", [6, 4], `tried ${score(tried)}`);
  const words = data.length
    ? `${daily ? "Last 24 hours by minute" : `Scores of the last ${count(data.length)} frames`}, highest ${score(Math.max(...data.map((d) => d[2])))}, threshold ${score(limit)}`
    : "No score yet";
  canvas.setAttribute("aria-label", words);
}

function niceStep(span, most) {
  const rough = span / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * ([1, 2, 5].find((step) => step * power >= rough) ?? 10);
}

function drawAxes(pen, area, { begin, end, top, y, size, daily, colour }) {
  pen.strokeStyle = colour("line");
  pen.fillStyle = colour("quiet");
  pen.lineWidth = 1;
  pen.textBaseline = "middle";
  pen.textAlign = "right";
  const step = niceStep(top, 4);
  const digits = Math.max(0, -Math.floor(Math.log10(step)));
  for (let value = 0; value <= top; value += step) {
    const level = Math.round(y(value)) + 0.5;
    pen.beginPath();
    pen.moveTo(area.left, level);
    pen.lineTo(area.right, level);
    pen.stroke();
    pen.fillText(value.toFixed(digits), area.left - 0.5 * size, level);
  }
  pen.textBaseline = "alphabetic";
  const foot = area.bottom + 1.5 * size;
  const short = daily || end - begin > 3600;
  pen.textAlign = "left";
  pen.fillText(clock(begin, !short), area.left, foot);
  pen.textAlign = "center";
  pen.fillText(clock((begin + end) / 2, !short), (area.left + area.right) / 2, foot);
  pen.textAlign = "right";
  pen.fillText(clock(end, !short), area.right, foot);
}

// One column a pixel, from the lowest to the highest score in it: no peak is lost, however many frames there are.
function columnsOf(data, x) {
  const columns = new Map();
  for (const [t, low, high, bad] of data) {
    const at = Math.round(x(t));
    const column = columns.get(at);
    if (!column) columns.set(at, { low, high, bad: bad > 0, last: high, first: low });
    else {
      column.low = Math.min(column.low, low);
      column.high = Math.max(column.high, high);
      column.bad ||= bad > 0;
      column.last = high;
    }
  }
  return columns;
}

function drawScores(pen, data, { x, y, daily, colour }) {
  const columns = columnsOf(data, x);
  const gap = daily ? 4 : 40; // pixels without a frame that end a line
  pen.strokeStyle = colour("trace");
  pen.lineWidth = daily ? 2 : 1.2;
  pen.lineJoin = "round";
  pen.beginPath();
  let before = -Infinity;
  for (const [at, column] of columns) {
    if (daily || at - before > gap) pen.moveTo(at, y(column.low) + (daily ? 1 : 0));
    else pen.lineTo(at, y(column.first));
    pen.lineTo(at, y(column.high));
    if (column.low !== column.high) pen.lineTo(at, y(column.low));
    pen.lineTo(at, y(column.last));
    before = at;
  }
  pen.stroke();
  pen.fillStyle = colour("bad");
  for (const [at, column] of columns) {
    if (!column.bad) continue;
    pen.beginPath();
    pen.arc(at, y(column.high), 2.5, 0, 7);
    pen.fill();
  }
}

// Where frames were judged by another threshold than the present one, that one is drawn too.
function drawThresholdsOf(pen, { x, y, colour }) {
  if (!points.some((point) => point[4] !== report.threshold.value)) return;
  pen.strokeStyle = colour("quiet");
  pen.lineWidth = 1;
  pen.setLineDash([2, 3]);
  pen.beginPath();
  points.forEach((point, i) => (i ? pen.lineTo(x(point[1]), y(point[4])) : pen.moveTo(x(point[1]), y(point[4]))));
  pen.stroke();
  pen.setLineDash([]);
}

// ---- trying a threshold ----

function effectOf(value) {
  let toGood = 0;
  let toAnomalous = 0;
  const recipe = report.recipe ? report.recipe.names.indexOf(report.recipe.name) : -1;
  const judged = points.filter((point) => point[5] !== 2 && point[6] === recipe); // no threshold gives the others a verdict
  for (const [, , , s, , verdict] of judged) {
    if (verdict === 1 && s <= value) toGood += 1;
    else if (verdict === 0 && s > value) toAnomalous += 1;
  }
  return { toGood, toAnomalous, frames: judged.length };
}

function effectWords({ toGood, toAnomalous, frames }) {
  if (!frames) return "No frames yet to try it on.";
  const changed = toGood + toAnomalous;
  const of = `Of the last ${count(frames)} frames, `;
  if (!changed) return `${of}none would change its verdict.`;
  const parts = [];
  if (toGood) parts.push(`${count(toGood)} from anomalous to good`);
  if (toAnomalous) parts.push(`${count(toAnomalous)} from good to anomalous`);
  return `${of}${count(changed)} would change: ${parts.join(", ")}.`;
}

function showTrial() {
  const present = report.threshold.value;
  const value = tried ?? present;
  if (document.activeElement !== $("slider") || tried === null) {
    const top = Math.min(report.threshold.maximum, Math.max(2 * present, 1.1 * highest(), value, 1e-6));
    if (Math.abs(top / Number($("slider").max) - 1) > 0.05 || top < value) {
      $("slider").max = top.toPrecision(2) >= value ? top.toPrecision(2) : top;
      $("slider").step = (Number($("slider").max) / 1000).toPrecision(1);
    }
  }
  if (document.activeElement !== $("slider")) $("slider").value = value;
  $("slider").setAttribute("aria-valuetext", score(value));
  $("value").max = report.threshold.maximum;
  if (document.activeElement !== $("value")) $("value").value = Number(value.toPrecision(6));
  text("effect", effectWords(effectOf(value)));
  text("method", `Present threshold ${score(present)}: ${report.threshold.method}.`);
  const same = tried === null;
  $("use").disabled = same || !$("value").validity.valid || Boolean(report.threshold.fixed);
  $("reset").disabled = same;
}

function tryOut(value) {
  tried = Number.isFinite(value) && value !== report.threshold.value ? value : null;
  text("written", "");
  showTrial();
  drawChart();
}

function askToConfirm() {
  text("confirm-new", String(tried));
  text("confirm-old", score(report.threshold.value));
  text("confirm-effect", effectWords(effectOf(tried)));
  $("confirm-override").hidden = !report.threshold.overridden;
  $("confirm").showModal();
}

async function write() {
  $("write").disabled = true;
  const value = tried;
  try {
    const of = report.recipe ? { recipe: report.recipe.name } : {};
    const response = await send("/api/threshold", { value, instead_of: report.threshold.value, ...of });
    if (response.status === 401) return signIn();
    tried = null;
    await ask();
    done(`Written. ${value} decides now.`, "ok");
  } catch (error) {
    done(`Not written: ${error.message}`, "failing");
  } finally {
    $("write").disabled = false;
    $("confirm").close();
  }
}

function done(words, state) {
  text("written", words);
  $("written").dataset.state = state;
}

// ---- anomalies ----

const tiles = new Map(); // by picture, so that a picture is fetched once

// A picture with two lines of words and the button of a mark; it opens large, with the button's data-words beside it.
// Of a large frame the tile shows its worst place, as `seen`.
function tileOf(address, seen = address) {
  const tile = document.createElement("li");
  const button = document.createElement("button");
  const image = document.createElement("img");
  image.src = seen;
  image.alt = "";
  const when = element("span");
  when.className = "quiet";
  button.append(image, element("span"), when);
  button.addEventListener("click", () => {
    text("closer-title", button.dataset.words);
    showMark($("closer-mark"), tile.judged);
    showCloser(address, tile.closer ?? { crops: [] }, button.getAttribute("aria-label"));
    $("closer").showModal();
  });
  const mark = element("button");
  mark.className = "mark";
  mark.hidden = true;
  tile.append(button, mark);
  return tile;
}

// The whole picture, reduced, or one of its crops, at the frame's own pixels; a crop's address follows the picture's.
function showCloser(address, { width, height, crops }, words) {
  const choices = [element("button", "Whole frame"), ...crops.map((crop, i) => element("button", String(i + 1)))];
  const view = $("closer-view");
  const choose = (number) => {
    const crop = crops[number - 1];
    const shows = crop ?? { x: 0, y: 0, width, height };
    $("closer-image").src = crop ? address.replace(/\.jpg$/, `/${number}.jpg`) : address;
    $("closer-image").alt = crop ? `Defect ${number}, at the frame’s own pixels` : words;
    view.classList.toggle("crop", Boolean(crop));
    view.classList.toggle("sized", crops.length > 0);
    view.style.setProperty("--ratio", crops.length ? shows.width / shows.height : 1);
    const outlines = crop ? crop.boxes : crops;
    $("closer-boxes").replaceChildren(...(crops.length ? outlines : []).map((box, i) => {
      const outline = element(crop ? "span" : "button", crop ? "" : String(i + 1));
      const percent = (length, of) => `${(100 * length) / of}%`;
      outline.style.left = percent(box.x - shows.x, shows.width);
      outline.style.top = percent(box.y - shows.y, shows.height);
      outline.style.width = percent(box.width, shows.width);
      outline.style.height = percent(box.height, shows.height);
      if (!crop) outline.setAttribute("aria-label", `Look closer at defect ${i + 1}`);
      if (!crop) outline.addEventListener("click", () => choose(i + 1));
      return outline;
    }));
    const places = crop?.boxes.map((box) => `${box.width} × ${box.height} pixels at ${box.x}, ${box.y}, peak ${score(box.peak)}`) ?? [];
    const more = places.length > 3 ? ` and ${places.length - 3} more` : "";
    text("closer-place", crop ? `Defect ${number}: ${places.slice(0, 3).join("; ") || "its middle"}${more}` : `${width} × ${height} pixels, reduced`);
    choices.forEach((choice, i) => choice.setAttribute("aria-pressed", String(i === number)));
  };
  choices.forEach((choice, number) => {
    choice.className = "tab";
    if (number) choice.setAttribute("aria-label", `Defect ${number}`);
    choice.addEventListener("click", () => choose(number));
  });
  $("closer-crops").replaceChildren(...choices);
  $("closer-crops").hidden = $("closer-place").hidden = !crops.length;
  choose(0);
}

function scoreWords(anomaly) {
  return anomaly.reason ? `no verdict, ${anomaly.reason}` : `score ${score(anomaly.score)}`;
}

function showAnomalies() {
  $("no-anomaly").hidden = report.anomalies.length > 0;
  const kept = new Set(report.anomalies.map((anomaly) => anomaly.picture));
  for (const number of tiles.keys()) if (!kept.has(number)) tiles.delete(number);
  const now = report.anomalies.map((anomaly) => {
    if (!tiles.has(anomaly.picture)) {
      const whole = `/anomalies/${anomaly.picture}`;
      tiles.set(anomaly.picture, tileOf(`${whole}.jpg`, anomaly.closer.crops.length ? `${whole}/1.jpg` : undefined));
    }
    const tile = tiles.get(anomaly.picture);
    const button = tile.firstChild;
    const frames = anomaly.frames > 1 ? `, ${count(anomaly.frames)} frames` : "";
    button.dataset.words = `${day(anomaly.time)}${clock(anomaly.time)}  ${anomaly.source}  ${anomaly.name}: ${scoreWords(anomaly)}, threshold ${score(anomaly.threshold)}${frames}`;
    tile.judged = { number: anomaly.picture, verdict: anomaly.reason ? "none" : "anomalous" };
    tile.closer = anomaly.closer;
    showMark(tile.lastChild, tile.judged);
    button.setAttribute("aria-label", `Anomaly ${button.dataset.words}`);
    const [value, when] = button.querySelectorAll("span");
    value.textContent = `${anomaly.reason ? "no verdict" : score(anomaly.score)}${frames}`;
    when.textContent = day(anomaly.time) + clock(anomaly.time);
    return tile;
  });
  showTiles($("thumbnails"), now);
}

function showTiles(list, now) {
  if (now.length !== list.childElementCount || now.some((tile, i) => list.children[i] !== tile)) list.replaceChildren(...now);
}

// ---- a candidate in shadow ----

const differing = new Map(); // tiles of disagreements by picture

function showShadow() {
  const { shadow } = report; // null where no engine is in shadow
  $("shadow").hidden = !shadow;
  if (!shadow) return;
  const { counts, marks } = shadow;
  const promotes = shadow.action === "promote";
  text("shadow-candidate", shadow.candidate);
  text("shadow-running", shadow.running + (shadow.recipe ? ` (recipe ${shadow.recipe})` : ""));
  text("shadow-thresholds", `, thresholds ${score(shadow.candidate_threshold)} and ${score(shadow.threshold)}`);
  text("shadow-compared", count(shadow.compared));
  text("shadow-agree", count(shadow.agree));
  text("shadow-running-only", count(counts.running_only));
  text("shadow-candidate-only", count(counts.candidate_only));
  text("shadow-running-only-of", `Anomalous by ${shadow.running} only`);
  text("shadow-candidate-only-of", `Anomalous by ${shadow.candidate} only`);
  const [alone, other] = [counts.running_events, counts.candidate_events];
  const p = shadow.p_value < 0.001 ? "p < 0.001" : `p = ${shadow.p_value.toFixed(3)}`;
  const told = shadow.p_value < 0.05 ? "that is no chance" : "that may be chance";
  text("shadow-test", alone + other ? `Parts called anomalous by one alone: ${count(alone)} by ${shadow.running}, ${count(other)} by ${shadow.candidate}. McNemar’s exact test: ${p}, ${told}.` : "");
  const said = [];
  if (marks.false_alarms_gone + marks.false_alarms_stay) said.push(`of ${count(marks.false_alarms_gone + marks.false_alarms_stay)} marked false alarms ${shadow.candidate} calls ${count(marks.false_alarms_gone)} good`);
  if (marks.misses_found + marks.misses_stay) said.push(`of ${count(marks.misses_found + marks.misses_stay)} marked misses it finds ${count(marks.misses_found)}`);
  text("shadow-marks", said.length ? `By what people marked: ${said.join(", ")}.` : "");
  const not = { skipped: "skipped, for it is slower", unjudged: "without a verdict in force", candidate_none: "without a verdict in shadow", failed: "failed" };
  const left = Object.entries(not).filter(([name]) => counts[name]).map(([name, words]) => `${count(counts[name])} ${words}`);
  text("shadow-not", left.length ? `Frames not compared: ${left.join(", ")}.` : "");
  text("shadow-trouble", shadow.trouble ? `It does not judge now: ${shadow.trouble}` : "");
  showList("shadow-against", shadow.against);
  text("shadow-change", promotes ? `Promote ${shadow.candidate}…` : `Back to ${shadow.candidate}…`);
  $("shadow-change").disabled = Boolean(shadow.fixed);
  $("shadow-change").title = shadow.fixed;
  showDisagreements(shadow);
  if ($("promotion").open && changing.candidate_sha256 === shadow.candidate_sha256 && changing.action === shadow.action) {
    changing = shadow;
    showAgainst();
  }
}

function showList(id, lines) {
  if (changed($(id), lines)) $(id).replaceChildren(...lines.map((line) => element("li", line)));
}

function showDisagreements(shadow) {
  const kept = new Set(shadow.disagreements.map((one) => one.picture));
  for (const number of differing.keys()) if (!kept.has(number)) differing.delete(number);
  const now = shadow.disagreements.map((one) => {
    if (!differing.has(one.picture)) differing.set(one.picture, differenceOf(one, shadow));
    const tile = differing.get(one.picture);
    tile.judged = { number: one.markable ? one.picture : 0, verdict: one.verdict };
    showMark(tile.lastChild, tile.judged);
    return tile;
  });
  showTiles($("shadow-pictures"), now);
}

function differenceOf(one, shadow) {
  const tile = tileOf(`/shadow/${one.picture}.jpg`);
  const button = tile.firstChild;
  const by = one.verdict === "anomalous" ? shadow.running : shadow.candidate;
  button.dataset.words = `${day(one.time)}${clock(one.time)}  ${one.source}  ${one.name}: anomalous by ${by} only, ${score(one.score)} against ${score(shadow.threshold)}, in shadow ${score(one.candidate_score)} against ${score(shadow.candidate_threshold)}`;
  button.children[1].textContent = `${by} only`;
  button.children[2].textContent = day(one.time) + clock(one.time);
  button.setAttribute("aria-label", `Disagreement ${button.dataset.words}`);
  return tile;
}

let changing = null; // what the dialog asks about

function askToPromote() {
  changing = report.shadow;
  const promotes = changing.action === "promote";
  text("promotion-title", promotes ? "Promote?" : "Go back?");
  text("promotion-do", promotes ? "Promote" : "Go back");
  text("promotion-new", changing.candidate);
  text("promotion-old", changing.running);
  $("promotion-word").value = "";
  showAgainst();
  $("promotion").showModal();
}

// What speaks against it may become more while somebody thinks about it.
function showAgainst() {
  showList("promotion-against", changing.against);
  $("promotion-anyway").hidden = !changing.against.length;
  showWord();
}

function showWord() {
  $("promotion-do").disabled = changing.against.length > 0 && $("promotion-word").value.trim().toLowerCase() !== "anyway";
}

async function changeEngine() {
  const { action, candidate, candidate_sha256, against } = changing;
  const body = { candidate: candidate_sha256, ...(against.length && { override: "anyway" }) };
  if ($("mark-name").value) body.name = $("mark-name").value;
  $("promotion-do").disabled = true;
  let words = `${candidate} judges from the next frame on.`;
  try {
    const response = await send(`/api/${action}`, body);
    if (response.status === 401) return signIn();
    tried = null;
    await ask();
  } catch (error) {
    words = `Not changed: ${error.message}`;
  }
  text("shadow-said", words);
  $("promotion").close();
}

// ---- verdicts that people correct ----

const KINDS = { anomalous: ["false_alarm", "False alarm"], good: ["missed", "Missed: bad part"] };
const markOf = (number) => number && marking.marks.find((mark) => mark.number === number);

// A button that corrects a judgement of the page, or takes the correction back; hidden where there is nothing to correct.
function showMark(button, { number, verdict }) {
  const mark = markOf(number);
  const [kind, words] = KINDS[verdict] ?? [];
  button.hidden = !marking.kept || !number || !kind;
  const label = mark ? "Undo" : words;
  if (button.textContent !== label && label) button.textContent = label;
  button.dataset.state = mark ? "marked" : "";
  button.onclick = () => (mark ? correct("/api/withdraw", { judgement: mark.judgement }) : correct("/api/mark", { number, kind }));
}

async function correct(address, body) {
  const said = {};
  if ($("mark-reason").value) said.reason = $("mark-reason").value;
  if ($("mark-name").value) said.name = $("mark-name").value;
  localStorage.setItem("name", $("mark-name").value);
  try {
    const response = await send(address, { ...body, ...said });
    if (response.status === 401) return signIn();
    $("mark-reason").value = "";
    text("mark-said", address === "/api/mark" ? "Noted in the log." : "Taken back; both stay in the log.");
    await Promise.all([askMarks(), askChanges()]);
    show();
  } catch (error) {
    text("mark-said", `Not noted: ${error.message}`);
  }
}

function showMarks() {
  $("marking").hidden = !marking.kept;
  $("marking-off").hidden = marking.kept;
  text("marking-off", marking.why);
  const words = { false_alarm: "false alarm", missed: "missed" };
  $("mark-rows").replaceChildren(
    ...marking.marks.map((mark) => {
      const what = element("td", words[mark.kind]);
      if (mark.reason) what.append(element("small", mark.reason));
      const at = Date.parse(mark.time) / 1000;
      what.append(element("small", `${day(at)}${clock(at)}, ${mark.who}`));
      const undo = document.createElement("td");
      const button = element("button", "Undo");
      button.setAttribute("aria-label", `Undo the correction of judgement ${mark.judgement}`);
      button.addEventListener("click", () => correct("/api/withdraw", { judgement: mark.judgement }));
      undo.append(button);
      return row(what, element("td", `${mark.part ?? mark.name}, number ${mark.judgement}`), undo);
    }),
  );
  showMark($("mark-live"), liveShown);
}

// ---- what a person does ----

function setRange(name) {
  range = name;
  $("range-recent").setAttribute("aria-pressed", String(name === "recent"));
  $("range-day").setAttribute("aria-pressed", String(name === "day"));
  ask().catch(() => {});
}

$("range-recent").addEventListener("click", () => setRange("recent"));
$("range-day").addEventListener("click", () => setRange("day"));
$("slider").addEventListener("input", () => {
  if (!report) return;
  const value = Number(Number($("slider").value).toPrecision(4));
  $("value").value = value;
  tryOut(value);
});
$("value").addEventListener("input", () => {
  if (!report) return;
  const value = $("value").valueAsNumber;
  tryOut(value);
  if (Number.isFinite(value)) $("slider").value = value;
});
$("reset").addEventListener("click", () => tryOut(NaN));
$("use").addEventListener("click", askToConfirm);
$("cancel").addEventListener("click", () => $("confirm").close());
$("write").addEventListener("click", write);
$("closer-close").addEventListener("click", () => $("closer").close());
$("recipe-choice").addEventListener("change", showRecipe);
$("shadow-change").addEventListener("click", askToPromote);
$("promotion-word").addEventListener("input", showWord);
$("promotion-cancel").addEventListener("click", () => $("promotion").close());
$("promotion-do").addEventListener("click", changeEngine);
$("recipe-use").addEventListener("click", useRecipe);
$("sign-out").addEventListener("click", async () => {
  await fetch("/logout", { method: "POST", headers: HEADERS });
  signIn();
});
document.addEventListener("visibilitychange", () => !document.hidden && ask().catch(() => {}));
new ResizeObserver(() => report && drawChart()).observe($("chart"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => report && drawChart());

$("mark-name").value = $("drift-name").value = localStorage.getItem("name") ?? "";
$("closer-mark").addEventListener("click", () => $("closer").close());

poll();
watch();
