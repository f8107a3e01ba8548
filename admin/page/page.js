// Draws the gate's locks: GET events sends a picture of the holders and waiters, up to four times a second while they
// change. Holds and waits that ended between two pictures are inferred from both. Bars do not move one by one: each
// stands at its time on a strip, all strips slide by the same length, and bars in progress are cut off at "now".

const most = { lanes: 24, waiters: 6, past: 14, ended: 200, rows: 200, scripts: 12 }; // limits of what is drawn or kept
const fades = 60_000; // ms that ended holds and waits stay visible
const silence = 12_000; // ms until the connection counts as lost; the gate sends an event at least every 5 s
const sleepsAfter = 60_000; // ms of a hidden page, until it disconnects
const spans = new Map([[10e3, 5], [20e3, 4], [30e3, 6], [60e3, 6], [120e3, 6], [300e3, 5]]); // ms of timeline, and ticks

const $ = (id) => document.getElementById(id);
const list = $("lanes");
const lanes = new Map(); // by key: a session's state and recent past
const tips = new WeakMap(); // by element: a function that returns its tooltip's lines
const still = matchMedia("(prefers-reduced-motion: reduce)");

let host = "", figures = null, pauses = []; // from the last picture
let shownLanes = most.lanes, order = [], orderedAt = -1e9;

// ---- Time. The gate's clock counts. The picture that arrived fastest gives the best estimate of our clock's skew.

let skew = null, lastAt = 0, frozenAt = null;

const now = () => frozenAt ?? Date.now() - (skew ?? 0);

function heardAt(at) {
  const late = Date.now() - at;
  skew = skew === null || Math.abs(late - skew) > 2000 ? late : Math.min(late, skew + 1);
  lastAt = at;
}

// ---- The connection

let source, retry = 500, timer, state = "connecting", pending = null, digesting = false, frozen = false, asleep = false, sleepTimer;

function connect() {
  asleep = false;
  source = new EventSource("events");
  source.addEventListener("locks", (e) => { arrived(e.data); });
  source.onopen = watch;
  source.onerror = lose;
  watch();
}

function watch() {
  clearTimeout(timer);
  timer = setTimeout(lose, silence);
}

// sleep disconnects a hidden page: browsers open only six connections per host.
function sleep() {
  asleep = true;
  source.close();
  clearTimeout(timer);
}

// lose schedules the next attempt: the browser itself retries after some failures only, and not after a 503.
function lose() {
  source.close();
  clearTimeout(timer);
  timer = setTimeout(connect, retry = Math.min(retry * 2, 10_000));
  link("lost");
}

function link(is) {
  state = is;
  if (state === "live") retry = 500;
  $("link").dataset.link = frozen && state === "live" ? "frozen" : state;
  setText($("link-text"), { live: frozen ? "frozen" : "live", lost: "lost", connecting: "connecting" }[state]);
  const lost = state === "lost";
  if (lost && !frozen) frozenAt ??= lastAt || null;
  if (!lost && !frozen) frozenAt = null;
  document.body.classList.toggle("frozen", lost);
  $("banner").hidden = !lost;
  if (lost) setText($("banner"), lastAt ? `The gate has not answered since ${clockTime(lastAt)}; the page shows that moment. Retrying automatically.`
    : "The gate does not answer. Is it running, and does its admin listen here? Retrying automatically.");
}

// arrived keeps only the newest picture. Drawing takes at most a quarter of the browser's time.
function arrived(text) {
  watch();
  pending = text;
  link("live");
  if (!digesting && !frozen) digest();
}

function digest() {
  const began = performance.now();
  try {
    learn(JSON.parse(pending));
    draw();
  } catch (error) {
    console.error(error);
    $("banner").hidden = false;
    setText($("banner"), `What the gate sent cannot be read: ${error.message}`);
  }
  pending = null;
  digesting = true;
  setTimeout(() => {
    digesting = false;
    if (pending !== null && !frozen) digest();
  }, 3 * (performance.now() - began));
}

// ---- Present and past

function learn(picture) {
  const at = Date.parse(picture.at), locks = picture.locks ?? [];
  if (at - lastAt > 15_000) lanes.clear(); // the gap is too long to infer what happened in it
  heardAt(at);
  host = picture.host ?? "";
  const warnings = picture.warnings ?? [];
  $("warnings").hidden = !warnings.length;
  setText($("warnings"), warnings.join("\n"));
  pauses = picture.pause?.gates ?? [];
  figures = { held: 0, elsewhere: 0, waiting: 0, longest: 0 };
  const there = new Set();
  for (const lock of locks) {
    there.add(lock.key);
    let lane = lanes.get(lock.key);
    if (!lane) lanes.set(lock.key, lane = { key: lock.key, past: [], peak: 0, rows: [] });
    count(lock);
    follow(lane, lock, at);
  }
  let ended = 0;
  for (const lane of [...lanes.values()].reverse()) {
    if (!there.has(lane.key)) follow(lane, null, at);
    lane.past = lane.past.filter((p) => p.until > at - fades).slice(-most.past);
    if (!lane.lock && (!lane.past.length || ++ended > most.ended)) lanes.delete(lane.key);
  }
  sample(at);
}

function count(lock) {
  lock.waiters ??= [];
  lock.far = !lock.held && !!lock.since;
  lock.there = lock.holder?.host && lock.holder.host !== host ? `on ${lock.holder.host}` : "by another process";
  lock.blocks = 0;
  for (const w of lock.waiters) {
    lock.blocks += w.waited_ms;
    figures.longest = Math.max(figures.longest, w.waited_ms);
  }
  figures.held += lock.held;
  figures.elsewhere += lock.far;
  figures.waiting += lock.waiters.length;
}

// follow compares a session's picture with the previous one. Requests that are gone from the head of the queue have
// held the lock if its holder has changed; otherwise they gave up. Holds that began and ended between the two pictures
// are assumed to have shared the time evenly.
function follow(lane, lock, at) {
  const { lock: was, at: wasAt, from, since } = lane, same = sameTurn(was, lock);
  Object.assign(lane, { lock, at, last: lock ?? lane.last, peak: Math.max(lane.peak, lock?.blocks ?? 0) });
  if (!same) Object.assign(lane, { from: null, since: lock?.since ? at - lock.held_ms : null });
  if (!was) return;
  const gone = goneFrom(was.waiters, lock?.waiters[0]).map((w) => ({ ...w, from: wasAt - w.waited_ms, since: null }));
  if (same) {
    lane.past.push(...gone.map((w) => ({ ...w, until: at })));
    return;
  }
  const heir = lock?.since ? gone.findLastIndex((w) => sameRequest(w, lock.holder)) : -1;
  if (heir >= 0) lane.from = gone.splice(heir, 1)[0].from;
  const until = Math.min(at, Math.max(wasAt, lane.since ?? (wasAt + at) / 2));
  const each = (until - wasAt) / (gone.length + 1);
  let t = wasAt + each;
  if (was.since) lane.past.push({ ...was.holder, from, since, until: t, far: was.far, blocked: was.waiters.length });
  for (const w of gone) lane.past.push({ ...w, since: t, until: t += each, blocked: 1, guessed: true });
}

const sameRequest = (a, b) => a?.path === b?.path && a?.method === b?.method && a?.script === b?.script;
const sameTurn = (a, b) => (a?.since || "") === (b?.since || "") && sameRequest(a?.holder, b?.holder);

// goneFrom returns the requests that were ahead of the one that is first now.
function goneFrom(queue, first) {
  const i = first ? queue.findIndex((w) => w.since === first.since && sameRequest(w, first)) : -1;
  return i < 0 ? queue : queue.slice(0, i);
}

// ---- Drawing

function draw() {
  // Nothing moves while the mouse or the keyboard focus is on it.
  const steady = performance.now() - touchedAt < 3000 || list.querySelector(":focus-visible");
  const all = [...lanes.values()].filter(wanted);
  if (!steady && performance.now() - orderedAt > 1000) {
    all.sort(blocksMost).forEach((lane, i) => { lane.place = i; });
    orderedAt = performance.now();
  } else {
    clearTimeout(reorder);
    reorder = setTimeout(draw, 1000);
  }
  order = all.sort((a, b) => (a.place ?? 1e9) - (b.place ?? 1e9));
  drawNow();
  const asTable = $("as-table").ariaPressed === "true";
  $("chart").hidden = asTable || !order.length;
  $("table").hidden = !asTable || !order.length;
  $("legend").hidden = asTable;
  if (order.length) (asTable ? drawTable : drawLanes)(order.slice(0, shownLanes));
  drawEmpty();
  drawPauses();
  stillAsked();
  const more = order.length - shownLanes;
  $("rest").hidden = more <= 0;
  setText($("rest").firstElementChild, `… and ${number(more)} more sessions, which block less.`);
  slid = ""; // there may be new strips
  slide();
  if (tipOf) showTip(tipOf);
  if (!ticking) tick();
}

// blocksMost orders by the total wait that a session causes now, then by its peak; ended sessions come last.
function blocksMost(a, b) {
  return (b.lock?.blocks ?? 0) - (a.lock?.blocks ?? 0) || b.peak - a.peak || !a.lock - !b.lock ||
    (a.since ?? 0) - (b.since ?? 0);
}

function wanted(lane) {
  if ($("only").checked && !lane.lock?.waiters.length && !lane.peak) return false;
  const q = $("filter").value.trim().toLowerCase();
  const has = (s) => !!s && s.toLowerCase().includes(q);
  const fits = (d) => !!d && (has(d.path) || has(d.script) || has(d.method) || has(d.host));
  const lock = lane.lock ?? lane.last;
  return !q || lane.key.startsWith(q) || has(lock.realm) || has(lock.gate) || fits(lock.holder) ||
    lock.waiters.some(fits) || lane.past.some(fits);
}

function drawNow() {
  const { waiting, longest, held, elsewhere } = figures;
  setText($("host"), host);
  setText($("n-waiting"), number(waiting));
  setText($("n-longest"), waiting ? duration(longest) : "–");
  setText($("n-held"), number(held));
  setText($("n-elsewhere"), number(elsewhere));
  $("n-elsewhere").parentElement.hidden = !elsewhere;
  document.title = `${pauses.length ? "paused · " : ""}${waiting ? `(${waiting}) ` : ""}fpm-gate${host && ` on ${host}`}`;
  let top = null;
  for (const { lock } of lanes.values()) if (lock?.blocks > (top?.blocks ?? -1) && lock.waiters.length) top = lock;
  const name = top?.holder?.path ? `${top.holder.method} ${top.holder.path}` : `${top?.far ? `A holder ${top.there}` : "An unknown holder"}`;
  const says = top ? ` blocks ${plural(top.waiters.length, "request")}` : held ? "No request waits" : "No session is held";
  if (setText($("headline"), (top ? name : "") + says + ".") && top) {
    $("headline").replaceChildren(element("b", name), says + ".");
  }
  setText($("subline"), top ? `in session ${top.key.slice(0, 8)} of ${top.gate}${top.far ? `, held ${top.there}` : ""}; the first of them has waited ${duration(top.waiters[0].waited_ms)}`
    : held ? `${plural(held, "session")} held` : "Requests with a PHP session take a lock while they run");
  speak((top ? name : "") + says);
}

function drawEmpty() {
  const none = !order.length;
  $("empty").hidden = !none;
  if (!none) return;
  const filtered = lanes.size > 0;
  setText($("empty").querySelector("h3"), filtered ? "Nothing matches the filter" : "No session is held or waited for");
  setText($("empty").querySelector("p"), filtered ? `${plural(lanes.size, "session")} hidden. Clear the filter, or untick “only blocked”.`
    : "When a PHP request takes its session’s lock, it appears here as a bar from its start to now. Requests that wait for the same session appear below it. Ended bars stay for a minute.");
}

// ---- The timeline

let span = 0, epoch = 0, scale = 0, width = 0, ticking = false, textsAt = 0;

const x = (t) => (t - epoch) * scale;

function drawLanes(shown) {
  layOut(shown);
  const tops = new Map(shown.filter(({ el }) => el?.isConnected).map(({ el }) => [el, el.offsetTop]));
  let next = list.firstElementChild;
  for (const lane of shown) {
    drawLane(lane);
    if (lane.el === next) next = next.nextElementSibling;
    else list.insertBefore(lane.el, next);
  }
  while (next) {
    const el = next;
    next = next.nextElementSibling;
    el.remove();
  }
  if (!list.querySelector(".row[tabindex='0']")) list.querySelector(".row")?.setAttribute("tabindex", "0");
  if (still.matches) return;
  for (const [el, top] of tops) {
    const way = top - el.offsetTop;
    if (Math.abs(way) > 40) el.animate([{ transform: `translateY(${way}px)` }, {}], { duration: 220, easing: "ease-out" });
  }
}

// layOut chooses the span: long enough for the blocking holders and their waiters. It does not shrink at once.
function layOut(shown) {
  const wide = $("axis").clientWidth * 0.88, t = now();
  let need = 0;
  for (const { lock, since, past } of shown) {
    if (lock?.waiters.length) need = Math.max(need, lock.waiters[0].waited_ms, t - (since ?? t));
    if (past.length) need = Math.max(need, Math.min(25_000, t - (past[0].from ?? past[0].since)));
  }
  const fits = (s) => s > need * 1.04;
  const chosen = +$("span").value || (spans.has(span) && fits(span) && !fits(span / 3) ? span : [...spans.keys()].find(fits) ?? 300e3);
  if (wide === width && chosen === span && t - epoch < 60_000) return;
  [span, epoch, width, scale] = [chosen, t, wide, wide / chosen];
  const ticks = spans.get(span);
  $("chart").style.setProperty("--tick", `${width / ticks}px`);
  $("axis").replaceChildren(...Array.from({ length: ticks }, (_, i) => {
    const label = element("span", i ? `−${roundDuration(i * span / ticks)}` : "now");
    label.style.left = `${width * (1 - i / ticks)}px`;
    return label;
  }));
  slide();
}

function drawLane(lane) {
  const el = lane.el ??= copy("lane"), { lock } = lane;
  const { key, realm, gate, far, there, blocks, waiters } = lane.last;
  const live = !!lock, n = live ? waiters.length : 0;
  el.classList.toggle("blocks", n > 0);
  el.classList.toggle("over", !live);
  el.lane = lane;
  setText(el.querySelector(".key"), key.slice(0, 8));
  setText(el.querySelector(".where"), (realm === gate ? gate : `${realm} / ${gate}`) + (far ? ` · held ${there}` : ""));
  setText(el.querySelector(".sum"), n ? `blocks ${number(n)} · ${duration(blocks)} of waiting` : "");
  el.querySelector(".break").hidden = !live || !lock.held;
  el.querySelector(".break").ariaLabel = `Break the lock of session ${key.slice(0, 8)}`;
  const past = live ? lane.past : lane.past.slice(0, -1);
  drawBand(lane, past);
  const rows = [live ? holding(lane) : ended(lane.past.at(-1))];
  const all = lane.open || n <= most.waiters + 1 ? Math.min(n, most.rows) : most.waiters;
  for (let i = 0; i < all; i++) rows.push(waiting(lane, waiters[i], i + 1));
  if (all < n) rows.push(theRest(lane, waiters.slice(all)));
  rows.forEach((r, i) => fillRow(lane, i, r));
  for (const r of lane.rows.splice(rows.length)) r.el.remove();
  const more = el.querySelector(".more");
  more.hidden = n <= most.waiters + 1;
  setText(more, lane.open ? "Show fewer" : `Show all ${number(n)}`);
}

function drawBand(lane, past) {
  const band = lane.el.querySelector(".band"), strip = band.querySelector(".slide");
  band.hidden = !past.length;
  const keep = new Set();
  for (const p of past) {
    p.el ??= copy("thin");
    if (p.el.parentNode !== strip) strip.append(p.el);
    keep.add(p.el);
    tips.set(p.el, () => about(p, pastLines(p)));
    const [wait, hold] = p.el.children;
    place(wait, p.from, p.since ?? p.until);
    wait.className = p.since ? "wait" : "gave-up";
    place(hold, p.since, p.until);
    hold.className = role(p);
    p.el.style.opacity = fading(p);
  }
  for (const el of [...strip.children]) if (!keep.has(el)) el.remove();
  setText(band.querySelector(".label"), `${past.length} before`);
}

const role = (p) => `hold ${p.far ? "far" : p.blocked ? "" : "free"}`;
const fading = (p) => Math.max(0.2, 1 - (now() - p.until) / fades).toFixed(2);

// What a row shows: the request (d), its bars (from, since, until), the start of its clock, and its tooltip's lines.
function holding(lane) {
  const { lock, since, from } = lane, { holder, waiters, far, expires } = lock;
  const ends = expires ? Date.parse(expires) : null;
  const d = holder?.path ? holder : { method: "", path: far ? `held ${lock.there}` : "asking the store" };
  return {
    d, kind: "live", says: "holds:", from, since, ends, clock: since, role: role({ far, blocked: waiters.length }),
    lines: () => [["Holds", `for ${duration(now() - since)}, since ${clockTime(since)}`], from && ["Waited", exact(since - from)],
      ends && ["Lock expires", `${clockTime(ends)}, in ${duration(ends - now())}`], ["Blocks", plural(waiters.length, "request")]],
  };
}

function ended(p) {
  return { d: p, kind: "ended", says: "ended:", from: p.from, since: p.since, over: p.until, role: role(p), opacity: fading(p), lines: () => pastLines(p) };
}

function waiting(lane, w, place) {
  const from = lane.at - w.waited_ms;
  return { d: w, kind: "waits live", says: "waits:", from, clock: from, lines: () => [["Waits", `for ${duration(now() - from)}, since ${clockTime(from)}`], ["In the queue", `place ${place}`]] };
}

function theRest(lane, rest) {
  const by = new Map(), from = lane.at - rest[0].waited_ms;
  for (const w of rest) by.set(`${w.method} ${w.path}`, (by.get(`${w.method} ${w.path}`) ?? 0) + 1);
  const lines = [...by].sort((a, b) => b[1] - a[1]).slice(0, 8).map(([name, n]) => [`${number(n)} ×`, name]);
  return { d: { method: "", path: `… and ${number(rest.length)} more` }, kind: "waits live rest-of", says: "wait:", from, clock: from, lines: () => lines };
}

const pastLines = (p) => [p.from && ["Waited", exact((p.since ?? p.until) - p.from)],
  p.since ? ["Held", `${p.guessed ? "about " : ""}${exact(p.until - p.since)}, until ${clockTime(p.until)}`] : ["Gave up", `waiting at ${clockTime(p.until)}`]];

function fillRow(lane, i, r) {
  const row = lane.rows[i] ??= newRow(lane.el.querySelector(".rows"));
  const { el, says, method, path, wait, hold, mark } = row;
  row.shows = r;
  if (row.kind !== r.kind) el.className = `row cols ${row.kind = r.kind}`;
  el.style.opacity = r.opacity ?? 1;
  setText(says, r.says);
  setText(method, r.d.method);
  setText(path, r.d.path);
  place(wait, r.from, r.since ?? r.over);
  wait.className = r.over && !r.since ? "gave-up" : "wait";
  place(hold, r.since, r.over);
  hold.className = r.role ?? "";
  place(mark, r.ends > now() ? r.ends : null, r.ends);
  tell(row);
}

function newRow(rows) {
  const el = rows.appendChild(copy("row")), row = { el, time: el.lastElementChild };
  [row.says, row.method, row.path] = el.firstElementChild.children;
  [row.wait, row.hold, row.mark] = el.querySelectorAll("i");
  tips.set(el, () => about(row.shows.d, row.shows.lines()));
  return row;
}

// place draws a bar from one time to another; without an end it extends into the future. A bar that starts before the
// timeline is cut there: browsers draw boxes of a million pixels badly.
function place(bar, from, until) {
  bar.hidden = from == null;
  if (bar.hidden) return;
  const left = x(Math.max(from, epoch - span - 1000));
  bar.style.left = `${left.toFixed(1)}px`;
  bar.style.width = `${Math.max(0, x(until ?? epoch + 120_000) - left).toFixed(1)}px`;
}

// tick slides the strips and updates the durations as long as the chart is visible.
function tick() {
  ticking = !$("chart").hidden && frozenAt === null;
  const t = performance.now();
  if (t - slidAt > strips.length / 3) { // many strips take long to paint, so they move in fewer steps
    slidAt = t;
    slide();
  }
  if (t - textsAt > 190) {
    textsAt = t;
    setText($("clock"), clockTime(now()));
    for (const { el, rows, lock, last } of order.slice(0, shownLanes)) {
      rows.forEach(tell);
      const left = lock?.expires ? Date.parse(lock.expires) - now() : Infinity;
      const expiry = el?.querySelector(".expiry");
      setText(expiry, !lock ? "over" : left === Infinity ? "" : left > 0 ? `expires in ${duration(left)}` : "expires now");
      expiry?.classList.toggle("soon", left < 10_000);
    }
  }
  if (ticking) still.matches ? setTimeout(tick, 1000) : requestAnimationFrame(tick);
}

let slid = "", slidAt = 0;
const strips = list.getElementsByClassName("slide");

// slide moves each strip itself: an inherited property would make the browser visit every element below.
function slide() {
  const transform = `translateX(${Math.round(width - x(now()))}px)`;
  if (transform === slid) return;
  slid = transform;
  for (const strip of strips) strip.style.transform = transform;
}

function tell(row) {
  const { clock, over } = row.shows;
  setText(row.time, over ? `${duration(now() - over)} ago` : clock ? duration(now() - clock) : "");
}

// ---- The table

function drawTable(shown) {
  const lines = [];
  for (const { lock, last, past, since, at, key } of shown) {
    const { realm, gate, far } = lock ?? last, who = [key.slice(0, 8), realm === gate ? gate : `${realm} / ${gate}`];
    const line = (role, d, t, ms) => lines.push([...who, role, d?.path ? `${d.method} ${d.path}` : "unknown", d?.script ?? "", t ? clockTime(t) : "", ms]);
    if (lock) line(far ? `holds ${lock.there}` : "holds", lock.holder, since, since ? duration(now() - since) : "");
    lock?.waiters.forEach((w, i) => line(`waits, place ${i + 1}`, w, at - w.waited_ms, duration(w.waited_ms)));
    for (const p of past.toReversed()) line(p.since ? "held" : "gave up", p, p.since ?? p.from, exact(p.until - (p.since ?? p.from)));
  }
  const more = lines.splice(most.rows).length;
  if (more) lines.push(["…", "", "", `and ${number(more)} more`, "", "", ""]);
  fillTable($("table-rows"), lines, 4, [6]);
}

// fillTable reuses the existing cells, so that selected text stays selected.
function fillTable(body, lines, script, numbers) {
  while (body.rows.length > lines.length) body.deleteRow(-1);
  lines.forEach((texts, y) => {
    const tr = body.rows[y] ?? body.insertRow();
    texts.forEach((text, i) => {
      const td = tr.cells[i] ?? tr.insertCell(), isScript = i === script;
      if (!td.firstChild) td.append(element("bdi")); // a long path is cut at its start, but still reads left to right
      if (!setText(td.firstChild, text)) return;
      td.className = isScript ? "script" : numbers.includes(i) ? "n" : "";
      if (isScript) td.title = text;
    });
  });
}

// ---- The last hour

let hour = null;

// The tables of scripts: which ones are in them, and their columns of figures. They are sorted by a column, at first by
// the first one, which has bars.
const ofScripts = {
  scripts: {
    has: (s) => s.holds || s.blocked, none: "No script has held a session yet.",
    columns: [["Others waited", "blocked_ms_total", sum], ["Blocked", "blocked", number], ["Longest hold", "held_ms_max", exact], ["Mean", "mean", exact], ["Holds", "holds", number]],
  },
  requests: {
    has: (s) => s.requests || s.slow, none: "No request has ended yet.",
    columns: [["In PHP", "php_ms_total", sum], ["Longest", "php_ms_max", exact], ["Mean", "php_mean", exact], ["Waited for session", "wait_ms_total", sum],
      ["Waited for PHP-FPM", "queue_ms_total", sum], ["Slow", "slow", some], ["Requests", "requests", number]],
  },
};

function headScripts(id) {
  const table = ofScripts[id], [head] = $(id).parentElement.tHead.rows;
  table.sortBy = table.columns[0][1];
  for (const [name, figure] of table.columns) {
    const th = head.appendChild(copy("sort"));
    th.ariaSort = figure === table.sortBy ? "descending" : null;
    setText(th.firstElementChild, name);
    th.firstElementChild.dataset.sort = figure;
    th.firstElementChild.onclick = () => {
      table.sortBy = figure;
      for (const other of head.cells) other.ariaSort = other === th ? "descending" : null;
      if (hour) drawHistory();
    };
  }
}

async function askHistory() {
  if (document.hidden || frozen) return;
  try {
    const answer = await fetch("history", { signal: AbortSignal.timeout(10_000) });
    if (!answer.ok) throw new Error(`the gate answers ${answer.status}`);
    hour = await answer.json();
    drawHistory();
  } catch (error) {
    for (const id in ofScripts) setText($(`${id}-note`), `${hour ? "Not up to date" : "Not available"}: ${error.message}.`);
  }
}

function drawHistory() {
  const all = (hour.scripts ?? []).map((s) => ({ ...s, mean: s.held_ms_total / s.holds, php_mean: s.requests ? s.php_ms_total / s.requests : 0 }));
  for (const id in ofScripts) drawScripts(id, all);
  drawWaits(hour.waits ?? []);
}

function drawScripts(id, all) {
  const { has, none, columns, sortBy } = ofScripts[id], [[, bar]] = columns;
  const scripts = all.filter(has).sort((a, b) => b[sortBy] - a[sortBy]);
  const top = scripts.slice(0, most.scripts), worst = Math.max(1, ...top.map((s) => s[bar]));
  fillTable($(id), top.map((s) => [s.script, ...columns.map(([, figure, text]) => text(s[figure]))]), 0, columns.map((_, i) => i + 1));
  top.forEach((s, y) => {
    const cell = $(id).rows[y].cells[1], weight = cell.querySelector("i") ?? cell.appendChild(element("i"));
    weight.style.width = `${84 * s[bar] / worst}%`;
  });
  const more = scripts.length - top.length;
  setText($(`${id}-note`), more > 0 ? `… and ${number(more)} more scripts.` : scripts.length ? "" : none);
}

function drawWaits(waits) {
  const all = waits.reduce((n, w) => n + w.count, 0), highest = Math.max(1, ...waits.map((w) => w.count));
  $("waits").replaceChildren(...waits.map(({ le_ms, count }, i) => {
    const bar = element("i"), box = element("span"), li = element("li");
    bar.style.width = `${100 * count / highest}%`;
    box.append(bar);
    li.append(element("span", le_ms === null ? `> ${roundDuration(waits[i - 1]?.le_ms ?? 0)}` : `≤ ${roundDuration(le_ms)}`), box, element("span", number(count)));
    li.className = !count ? "none" : (le_ms ?? Infinity) > 1000 ? "slow" : "";
    return li;
  }));
  setText($("waits-note"), all ? "" : "No request has waited yet.");
}

// ---- Breaking a lock

let asked = null; // the lane that the dialog is about, and its lock when the dialog opened

function ask(lane) {
  asked = { lane, lock: lane.lock };
  const { holder, waiters, key } = lane.lock;
  setText($("ask-key"), key.slice(0, 8));
  setText($("ask-who"), `${holder.method} ${holder.path}, held for ${duration(now() - lane.since)}`);
  setText($("ask-next"), waiters.length ? `The next of ${plural(waiters.length, "waiting request")} gets the session at once.` : "No request waits for it now.");
  setText($("ask-error"), "");
  setText($("ask-why"), "");
  $("ask-end").hidden = $("ask-ends").hidden = true;
  $("ask-yes").disabled = $("ask-end").disabled = false;
  $("ask").showModal();
  explain(asked);
}

// explain shows what the script of the lock does, and offers to end it if its worker can be looked at.
async function explain(about) {
  try {
    const answer = await fetch(`locks/${encodeURIComponent(about.lane.key)}/why`, { signal: AbortSignal.timeout(10_000) });
    if (!answer.ok || asked !== about) return;
    const { worker, problem } = await answer.json();
    if (asked !== about) return;
    setText($("ask-why"), worker ? workerText(worker) : `Its worker cannot be looked at: ${problem}`);
    $("ask-end").hidden = $("ask-ends").hidden = !worker;
  } catch { /* the lock can be broken all the same */ }
}

function workerText({ pid, state, syscall, target, session, handler, file, line }) {
  const parts = [`Process ${pid} is ${state}`];
  if (syscall) parts.push(target ? `waits in ${syscall} for ${target}` : `waits in ${syscall}`);
  parts.push({ active: `has its session open (${handler})`, none: "does not have its session open" }[session] ?? "may have its session open");
  return `${parts.join(", ")}.${file ? ` It started the session in ${file}:${line}.` : ""}`;
}

// stillAsked disables the button if the lock that the dialog is about has ended.
function stillAsked() {
  if (!asked || !$("ask").open || sameTurn(asked.lane.lock, asked.lock)) return;
  $("ask-yes").disabled = $("ask-end").disabled = true;
  setText($("ask-error"), "This lock has already ended.");
}

// endings are what the gate says of how a script has ended.
const endings = { limit: "by PHP's time limit", term: "with its worker (SIGTERM)", itself: "by itself" };

// change has the gate change something, and returns its reply. A text that is no JSON, such as a proxy's, is an error's.
async function change(method, path) {
  const answer = await fetch(path, { method, headers: { "X-FPM-Gate": "1" }, signal: AbortSignal.timeout(10_000) });
  let reply = { error: await answer.text() };
  try {
    reply = JSON.parse(reply.error);
  } catch { /* it stays the error's text */ }
  if (answer.ok) return reply;
  throw Object.assign(new Error(reply.error?.slice(0, 300) || `the gate answers ${answer.status}`), { status: answer.status });
}

async function breakIt(terminate) {
  const { key } = asked.lane;
  $("ask-yes").disabled = $("ask-end").disabled = true;
  try {
    const query = new URLSearchParams({ since: asked.lock.since }); // or it might be the next request's lock by now
    if (terminate) query.set("terminate", "true");
    const reply = await change("DELETE", `locks/${encodeURIComponent(key)}?${query}`);
    $("ask").close();
    const what = terminate ? "The script of lock" : "Lock";
    const how = terminate ? ["has ended", endings[reply.ended_by]].filter(Boolean).join(" ") : "is broken; its script keeps running";
    say(`${what} ${key.slice(0, 8)} ${how}.`);
  } catch (error) {
    if (error.status === 404) {
      $("ask").close();
      say(`Lock ${key.slice(0, 8)} had already ended.`);
      return;
    }
    setText($("ask-error"), `${terminate ? "Not ended" : "Not broken"}: ${error.message}`);
    $("ask-yes").disabled = $("ask-end").disabled = false;
  }
}

// ---- Pausing gates

let resumed = null; // the pause that the dialog is about

const busy = ({ waiting, running }) => `${plural(waiting, "request")} wait${waiting === 1 ? "s" : ""}, ${number(running)} in PHP-FPM`;

function drawPauses() {
  const list = $("pauses");
  list.hidden = !pauses.length;
  while (list.children.length > pauses.length) list.lastElementChild.remove();
  pauses.forEach((pause, i) => {
    const li = list.children[i] ?? list.appendChild(copy("pause"));
    li.pause = pause;
    setText(li.firstElementChild, `Gate ${pause.gate} is paused until ${clockTime(Date.parse(pause.until))}: ${busy(pause)}.`);
    li.lastElementChild.ariaLabel = `Resume gate ${pause.gate}`;
  });
  if (!resumed || !$("go").open) return;
  const is = pauses.find((p) => p.gate === resumed.gate && p.since === resumed.since);
  $("go-yes").disabled = !is || !!resumed.sent;
  if (is) setText($("go-who"), pauseText(is));
  else setText($("go-error"), "This pause has already ended.");
}

const pauseText = (p) => `Paused since ${clockTime(Date.parse(p.since))}; ${busy(p)}`;

function askResume(pause) {
  resumed = { ...pause };
  setText($("go-gate"), pause.gate);
  setText($("go-who"), pauseText(pause));
  setText($("go-error"));
  $("go-yes").disabled = false;
  $("go").showModal();
}

async function resume() {
  const about = resumed;
  about.sent = $("go-yes").disabled = true;
  try {
    const { gates: [was] } = await change("DELETE", `pause?${new URLSearchParams({ gate: about.gate })}`);
    $("go").close();
    say(was.paused ? `Gate ${was.gate} is resumed; ${plural(was.waiting, "request")} waited.` : `The pause of gate ${was.gate} had already ended.`);
  } catch (error) {
    setText($("go-error"), `Not resumed: ${error.message}`);
    about.sent = $("go-yes").disabled = false;
  }
}

// askPause offers the gates as they are now, with what is in their PHP-FPM.
async function askPause() {
  setText($("hold-error"));
  $("hold-yes").disabled = true;
  $("hold-gate").replaceChildren();
  $("hold").showModal();
  try {
    const answer = await fetch("pause", { signal: AbortSignal.timeout(10_000) }), { gates } = await answer.json();
    const all = gates.map((g) => new Option(`${g.gate} (${g.paused ? "paused, " : ""}${number(g.running)} in PHP-FPM)`, g.gate));
    if (all.length > 1) all.unshift(new Option("all", ""));
    $("hold-gate").replaceChildren(...all);
    $("hold-yes").disabled = false;
  } catch (error) {
    setText($("hold-error"), `The gate does not say what it serves: ${error.message}`);
  }
}

async function pause() {
  const gate = $("hold-gate").value;
  $("hold-yes").disabled = true;
  try {
    await change("PUT", `pause?${new URLSearchParams({ for: $("hold-for").value, ...(gate && { gate }) })}`);
    $("hold").close();
    say(gate ? `Gate ${gate} is paused.` : "All gates are paused.");
  } catch (error) {
    setText($("hold-error"), `Not paused: ${error.message}`);
    $("hold-yes").disabled = false;
  }
}

// ---- Messages

let saidTimer, spokenAt = 0, tipOf = null;

function say(text) {
  setText($("said"), text);
  clearTimeout(saidTimer);
  saidTimer = setTimeout(setText, 6000, $("said"), "");
}

// speak is for screen readers, which cannot follow a text that changes four times a second.
function speak(text) {
  if (performance.now() - spokenAt > 8000 && setText($("spoken"), text)) spokenAt = performance.now();
}

function about(d, lines) {
  const all = [["Request", d.script && `${d.method} ${d.path}`], ["Script", d.script], ["Gate", d.gate], ["Route", d.route], ["Host", d.host], ...lines];
  return all.filter((l) => l?.[1]);
}

function showTip(el) {
  const tip = $("tip"), lines = el?.isConnected && tips.get(el)?.();
  tipOf = lines ? el : null;
  tip.hidden = !tipOf;
  if (!tipOf) return;
  const list = element("dl");
  for (const [name, text] of lines) list.append(element("dt", name), element("dd", text));
  tip.replaceChildren(list);
  const box = el.getBoundingClientRect(), below = box.bottom + 6;
  tip.style.left = `${Math.max(8, Math.min(tipX ?? box.left + 24, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${below + tip.offsetHeight < innerHeight ? below : box.top - tip.offsetHeight - 6}px`;
}

// ---- Small things

const numbers = new Intl.NumberFormat("en");
const clocks = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const clockTime = (t) => clocks.format(t);
const plural = (n, what) => `${number(n)} ${what}${n === 1 ? "" : "s"}`;
const two = (n) => String(Math.floor(n)).padStart(2, "0");

function number(n) { return numbers.format(n); }
function some(n) { return n ? number(n) : "–"; }
function sum(ms) { return ms ? duration(ms) : "–"; }
function exact(ms) { return ms < 1000 ? `${Math.round(ms)} ms` : duration(ms); }

// duration formats a running duration, with digits that do not flicker.
function duration(ms) {
  const s = Math.max(0, ms) / 1000;
  if (s < 9.95) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  return s < 3600 ? `${Math.floor(s / 60)} min ${two(s % 60)} s` : `${number(Math.floor(s / 3600))} h ${two(s / 60 % 60)} min`;
}

const roundDuration = (ms) => ms < 1000 ? `${ms} ms` : ms < 60_000 ? `${ms / 1000} s` : `${ms / 60_000} min`;

// setText changes an element's text if it differs, and reports whether it did.
function setText(el, text = "") {
  if (!el || el.textContent === String(text)) return false;
  el.textContent = text;
  return true;
}

function element(name, text) {
  const el = document.createElement(name);
  if (text) el.textContent = text;
  return el;
}

const copy = (name) => $(`${name}-template`).content.firstElementChild.cloneNode(true);

const samples = [];

function sample(at) {
  samples.push([at, figures.waiting]);
  while (samples[0][0] < at - fades) samples.shift();
  const highest = Math.max(1, ...samples.map((s) => s[1]));
  const at60 = (t) => (60 - (at - t) / 1000).toFixed(1);
  const points = samples.map(([t, n]) => `${at60(t)},${(27 - 26 * n / highest).toFixed(1)}`);
  $("spark").setAttribute("points", [`${at60(samples[0][0])},27`, ...points, "60,27"].join(" "));
}

// ---- Controls

let touchedAt = -1e9, tipX = null, reorder;

function redraw() {
  orderedAt = -1e9;
  if (figures) draw();
}

// remember keeps the settings in the URL, so that it can be shared.
function remember() {
  const hash = new URLSearchParams();
  if ($("filter").value) hash.set("q", $("filter").value);
  if ($("only").checked) hash.set("only", 1);
  if (+$("span").value) hash.set("span", $("span").value);
  if ($("as-table").ariaPressed === "true") hash.set("table", 1);
  history.replaceState(null, "", `#${hash}`);
  redraw();
}

function recall() {
  const hash = new URLSearchParams(location.hash.slice(1));
  $("filter").value = hash.get("q") ?? "";
  $("only").checked = hash.has("only");
  $("span").value = hash.get("span") ?? 0;
  viewAs(hash.has("table"));
}

function viewAs(table) {
  $("as-table").ariaPressed = table;
  $("as-lanes").ariaPressed = !table;
}

for (const id of ["filter", "only", "span"]) $(id).addEventListener("input", remember);
$("as-table").onclick = () => { viewAs(true); remember(); };
$("as-lanes").onclick = () => { viewAs(false); remember(); };
$("rest").querySelector("button").onclick = () => { shownLanes += most.lanes; redraw(); };
$("freeze").onclick = () => {
  frozen = !frozen;
  $("freeze").ariaPressed = frozen;
  frozenAt = frozen ? now() : null;
  link(state);
  if (!frozen && pending !== null) digest();
  else if (figures) draw();
  if (frozen) {
    textsAt = 0; // what stays on the page are the texts of this moment
    tick();
  }
};

function tipAt(e, byPointer) {
  tipX = byPointer ? e.clientX + 12 : null;
  showTip(e.target.closest(".row, .thin"));
}

list.addEventListener("click", (e) => {
  const { lane } = e.target.closest(".lane"), button = e.target.closest("button");
  if (button?.matches(".break")) ask(lane);
  else if (button?.matches(".more")) { lane.open = !lane.open; redraw(); }
  else tipAt(e, e.detail > 0);
});
list.addEventListener("pointermove", (e) => {
  touchedAt = performance.now();
  tipAt(e, true);
});
list.addEventListener("pointerleave", () => { showTip(null); touchedAt = -1e9; });
list.addEventListener("focusin", (e) => {
  const row = e.target.closest(".row");
  if (!row) return;
  list.querySelector(".row[tabindex='0']")?.setAttribute("tabindex", "-1");
  row.tabIndex = 0;
  if (row.matches(":focus-visible")) { tipX = null; showTip(row); }
});
list.addEventListener("focusout", () => showTip(null));
list.addEventListener("keydown", (e) => {
  const rows = [...list.querySelectorAll(".row")], i = rows.indexOf(e.target.closest(".row"));
  const to = { ArrowDown: i + 1, ArrowUp: i - 1, Home: 0, End: rows.length - 1 }[e.key];
  if (i < 0 || !rows[to]) return;
  e.preventDefault();
  rows[to].focus();
});
document.addEventListener("keydown", (e) => { if (e.key === "Escape") showTip(null); });
document.addEventListener("click", (e) => { if (!list.contains(e.target)) showTip(null); });
document.addEventListener("visibilitychange", () => {
  clearTimeout(sleepTimer);
  if (document.hidden) sleepTimer = setTimeout(sleep, sleepsAfter);
  else if (asleep) connect();
  askHistory();
});
addEventListener("scroll", () => showTip(null), { passive: true });
addEventListener("hashchange", () => { recall(); redraw(); });
new ResizeObserver(() => figures && draw()).observe($("axis"));

$("ask-no").onclick = () => $("ask").close();
$("ask-yes").onclick = () => breakIt(false);
$("ask-end").onclick = () => breakIt(true);
$("pauses").onclick = (e) => { if (e.target.matches("button")) askResume(e.target.parentElement.pause); };
$("go-no").onclick = () => $("go").close();
$("go-yes").onclick = resume;
$("pause").onclick = askPause;
$("hold-no").onclick = () => $("hold").close();
$("hold-yes").onclick = pause;
for (const id in ofScripts) headScripts(id);

recall();
connect();
askHistory();
setInterval(askHistory, 15_000);
