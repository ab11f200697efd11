// The status page: an overview every two seconds, and what lies between two of them. Counts are since the server's start; rates are made here.

const EVERY_MS = 2000;
/** An answer takes no longer, or there is none. */
const PATIENCE_MS = 3000;
/** Two overviews that are further apart say little about what lies between them. */
const GAP_MAX_MS = 5 * EVERY_MS;
const KEPT_MS = 300_000;
const PLOTTED = 6;

const id = (name) => document.getElementById(name);
const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};
const drawn = (name, attributes = {}, ...children) => {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  made.append(...children);
  return made;
};

const number = (value) => {
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)}M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(1)}k`;
  return value >= 100 || Number.isInteger(value) ? value.toFixed(0) : value.toFixed(1);
};
const percent = (part) => (Number.isFinite(part) ? `${(part * 100).toFixed(1)} %` : '–');
let bounds = [];
const time = (seconds) => {
  if (Number.isNaN(seconds)) return '–';
  if (seconds === Infinity) return `over ${bounds.at(-1).toFixed(1)} s`;
  if (seconds < 1e-3) return `${(seconds * 1e6).toFixed(0)} µs`;
  return seconds < 1 ? `${(seconds * 1e3).toFixed(1)} ms` : `${seconds.toFixed(2)} s`;
};
const size = (bytes) => (bytes >= 2 ** 30 ? `${(bytes / 2 ** 30).toFixed(1)} GiB` : `${(bytes / 2 ** 20).toFixed(0)} MiB`);
const age = (seconds) => (seconds >= 86400 ? `${(seconds / 86400).toFixed(1)} d` : seconds >= 3600 ? `${(seconds / 3600).toFixed(1)} h` : seconds >= 60 ? `${(seconds / 60).toFixed(0)} min` : `${seconds} s`);

/** The time within which `part` of the answers were made: between the bounds of its bucket by its place in it; Infinity beyond all bounds. */
const quantile = (buckets, bounds, part) => {
  const all = buckets.reduce((sum, n) => sum + n, 0);
  if (!all) return NaN;
  let below = 0;
  for (const [n, count] of buckets.entries()) {
    if (below + count >= part * all) {
      if (n >= bounds.length) return Infinity;
      const from = n ? bounds[n - 1] : 0;
      return from + (bounds[n] - from) * ((part * all - below) / count);
    }
    below += count;
  }
  return NaN;
};

/** What happened between two overviews. */
const between = (before, now) => {
  const seconds = (now.taken_ms - before.taken_ms) / 1000;
  const rate = (name) => Math.max(0, (now.counts[name] - before.counts[name]) / seconds);
  const routesBefore = new Map(before.routes.map((route) => [route.name, route.buckets]));
  const routes = now.routes.map((route) => {
    const buckets = route.buckets.map((count, b) => Math.max(0, count - (routesBefore.get(route.name)?.[b] ?? 0)));
    return { name: route.name, buckets, rate: buckets.reduce((sum, count) => sum + count, 0) / seconds };
  });
  const all = routes[0].buckets.map((_, b) => routes.reduce((sum, route) => sum + route.buckets[b], 0));
  const known = new Map(before.statements.map((runs) => [runs.name, runs]));
  const statements = now.statements.map((runs) => {
    const was = known.get(runs.name) ?? { count: 0, sum_ns: 0 };
    const [count, ns] = [runs.count - was.count, runs.sum_ns - was.sum_ns];
    return { ...runs, rate: Math.max(0, count) / seconds, mean_s: count > 0 ? ns / count / 1e9 : NaN, busy: Math.max(0, ns) / 1e9 / seconds };
  });
  const [ticks, was] = [now.machine.ticks, before.machine.ticks];
  const spent = ticks && was ? { all: ticks.all - was.all, idle: ticks.idle - was.idle, stolen: ticks.stolen - was.stolen } : null;
  const throttled = [now, before].some((each) => each.machine.throttled_us === null) ? NaN : (now.machine.throttled_us - before.machine.throttled_us) / 1e6 / seconds;
  const [hits, misses, untrusted] = ['hits', 'misses', 'untrusted'].map((name) => rate(`catwalk_cache_${name}_total`));
  return {
    at: now.taken_ms, rate, routes, all, statements, untrusted, throttled, hits: hits / (hits + misses + untrusted),
    cpu: spent?.all ? 1 - spent.idle / spent.all : NaN, stolen: spent?.all ? spent.stolen / spent.all : NaN,
    deaths: new Map(now.workers.processes.map((process) => [process.slot, process.deaths])),
  };
};

const history = [];
const plots = new Map();

/** Each name has a colour of its own, whatever else is shown. */
const colourOf = (name, names) => `hsl(${(names.indexOf(name) * 137.5) % 360} 65% 58%)`;

/** Lines over the last five minutes; `read` makes a point's values, by name; all of `names` may come; `most`: the end of the scale, if it is fixed. */
const plot = (title, unit, names, read, most) => {
  const svg = drawn('svg', { viewBox: '0 0 600 180', preserveAspectRatio: 'none', role: 'img' });
  const [range, legend] = [element('span'), element('ul', { className: 'legend' })];
  id('plots').append(element('div', { className: 'plot' }, element('h2', {}, title, range), svg, legend));
  plots.set(title, () => {
    const [points, last] = [history.map(read), history.at(-1)];
    const shown = Object.keys(points.at(-1) ?? {});
    // What lies beyond all bounds is drawn at the last one.
    const end = unit === time ? bounds.at(-1) : Infinity;
    const value = (point, name) => Math.min(point[name], end);
    const all = points.flatMap((point) => shown.map((name) => point[name])).filter((value) => !Number.isNaN(value));
    const seen = Math.max(...all.map((value) => Math.min(value, end)), 1e-9);
    const top = most ?? seen * 1.1;
    const x = (at) => 600 - ((last.at - at) * 600) / KEPT_MS;
    const lines = shown.map((name) => {
      const path = points.map((point, n) => [x(history[n].at), value(point, name)]).filter(([, y]) => Number.isFinite(y));
      return drawn('polyline', { points: path.map(([at, y]) => `${at.toFixed(1)},${(176 - (y / top) * 168).toFixed(1)}`).join(' '), stroke: colourOf(name, names()) });
    });
    const grid = [0.25, 0.5, 0.75, 1].map((part) => drawn('line', { x1: 0, x2: 600, y1: 176 - part * 168, y2: 176 - part * 168 }));
    svg.replaceChildren(...grid, ...lines);
    svg.setAttribute('aria-label', `${title}: ${shown.map((name) => `${name} ${unit(points.at(-1)[name])}`).join(', ')}`);
    range.textContent = most ? `0 to ${unit(most)}, 5 min` : `highest ${unit(all.includes(Infinity) ? Infinity : seen)}, 5 min`;
    legend.replaceChildren(...shown.map((name) => {
      const mark = element('i');
      mark.style.background = colourOf(name, names());
      return element('li', {}, mark, `${name} ${unit(points.at(-1)[name])}`);
    }));
  });
};

/** The busiest routes of the last points, always in the order of their names. */
const busiest = () => {
  const sums = new Map();
  history.slice(-15).forEach((point) => point.routes.forEach((route) => sums.set(route.name, (sums.get(route.name) ?? 0) + route.rate)));
  return [...sums].filter(([, sum]) => sum > 0).sort((a, b) => b[1] - a[1]).slice(0, PLOTTED).map(([name]) => name).sort();
};
/** Those, found once a look. */
let plotted = [];
const byRoute = (value) => (point) => Object.fromEntries(plotted.map((name) => [name, value(point.routes.find((route) => route.name === name) ?? { rate: NaN, buckets: [] })]));
const routeNames = () => (history.at(-1)?.routes ?? []).map((route) => route.name);
plot('Requests a second', number, routeNames, byRoute((route) => route.rate));
plot('p50 by route', time, routeNames, byRoute((route) => quantile(route.buckets, bounds, 0.5)));
plot('p99 by route', time, routeNames, byRoute((route) => quantile(route.buckets, bounds, 0.99)));
plot('Hit ratio, CPU', percent, () => ['hits', 'CPU', 'stolen'], (point) => ({ hits: point.hits, CPU: point.cpu, stolen: point.stolen }), 1);

const table = (name, heads, rows) => {
  const row = (cells, kind) => element('tr', {}, ...cells.map((cell) => (cell instanceof Node ? cell : element(kind, {}, cell))));
  const empty = element('tr', {}, element('td', { colSpan: heads.length }, 'none'));
  id(name).replaceChildren(element('thead', {}, row(heads, 'th')), element('tbody', {}, ...(rows.length ? rows.map((cells) => row(cells, 'td')) : [empty])));
};
const warn = (text, isBad) => element('td', { className: isBad ? 'bad' : '' }, text);

/** Of the replicas: how many are read from, and how far the last of those is behind. */
const replicas = (nodes) => {
  const all = nodes.filter((node) => !node.is_primary);
  const fit = all.filter((node) => node.is_fit);
  return { all: all.length, fit: fit.length, lag: fit.some((node) => node.lag_ms === null) ? null : Math.max(...fit.map((node) => node.lag_ms), 0) };
};

const tiles = (now, point) => {
  const { counts, workers, cache, feed, machine, nodes } = now;
  const errors = point.rate('catwalk_http_responses_total{class="5xx"}');
  const [open, wanted] = ['open', 'wanted'].map((name) => counts[`catwalk_db_connections_${name}`]);
  const cpu = [`stolen ${percent(point.stolen)}`];
  if (machine.baseline) cpu.push(`${percent(point.cpu / machine.baseline)} of ${machine.instance}'s baseline`);
  if (point.throttled > 0) cpu.push(`held back by its quota ${percent(point.throttled)}`);
  const lookups = point.untrusted > 0 ? `${number(point.untrusted)}/s not trusted` : `${number(point.rate('catwalk_cache_misses_total'))} misses/s`;
  const all = [
    ['requests/s', number(point.rate('catwalk_http_requests_total')), `${number(errors)} errors/s`, errors > 0],
    ['p99', time(quantile(point.all, bounds, 0.99)), `p50 ${time(quantile(point.all, bounds, 0.5))}`],
    ['hit ratio', percent(point.hits), lookups, point.untrusted > 0],
    ['cache', percent(1 - cache.segments_free / Math.max(cache.segments, 1)), `of ${size(cache.size_bytes)}; ${number(point.rate('catwalk_cache_evicted_total'))} evicted/s`],
    ['freshness', feed.watermark_age_ms === null ? '–' : `${feed.watermark_age_ms.toFixed(0)} ms`, feed.watermark_age_ms === null ? feed.state : `changes before that are visible; ${feed.state}`, feed.watermark_age_ms === null || point.untrusted > 0],
    ['workers', `${workers.serving}/${workers.wanted}`, workers.crash_looping ? `${workers.crash_looping} crash-looping` : 'serving', workers.serving < workers.wanted],
    ['connections', number(counts.catwalk_http_connections_open), `database ${open}/${wanted}`, open === 0 && wanted > 0],
    ['CPU', percent(point.cpu), cpu.join('; '), point.stolen > 0.05 || point.throttled > 0.01],
  ];
  const { all: others, fit, lag } = replicas(nodes);
  if (others > 0) all.push(['replicas', `${fit}/${others}`, fit ? `read from; ${lag === null ? 'nobody looks how far behind' : `${lag} ms behind at most`}` : 'none is read from', fit < others]);
  id('tiles').replaceChildren(...all.map(([name, value, more, isBad]) => element('div', { className: isBad ? 'tile bad' : 'tile' }, element('span', {}, name), element('b', {}, value), element('small', {}, more))));
};

const show = (now, point) => {
  id('host').textContent = `${now.host} · ${now.version}`;
  tiles(now, point);
  plotted = busiest();
  plots.forEach((draw) => draw());
  const routes = point.routes.filter((route) => route.rate > 0).sort((a, b) => b.rate - a.rate);
  table('routes', ['route', 'requests/s', 'p50', 'p99'], routes.map((route) => [route.name, number(route.rate), time(quantile(route.buckets, bounds, 0.5)), time(quantile(route.buckets, bounds, 0.99))]));
  const statements = [...point.statements].sort((a, b) => b.busy - a.busy || b.sum_ns - a.sum_ns).slice(0, 10);
  table('statements', ['catwalk explain …', 'runs/s', 'mean', 'longest', 'busy'], statements.map((runs) => [runs.name, number(runs.rate), time(Number.isFinite(runs.mean_s) ? runs.mean_s : runs.sum_ns / runs.count / 1e9), time(runs.longest_ns / 1e9), runs.busy.toFixed(2)]));
  table('hottest', ['key', 'of sampled hits'], now.hottest.map((hot) => [hot.key, percent(hot.share)]));
  const role = ({ slot, phase }) => (phase === 'following' ? 'feed' : `#${slot}`);
  const hasDied = ({ slot, deaths }) => deaths > (history[0].deaths.get(slot) ?? deaths);
  table('processes', ['place', 'pid', 'phase', 'age', 'beat', 'requests', 'deaths'], now.workers.processes.map((process) => [role(process), String(process.pid), process.phase, age(process.age_s), warn(`${process.beat_age_ms} ms`, process.beat_age_ms > 2000), number(process.requests), warn(String(process.deaths), hasDied(process))]));
  const isBad = ({ is_primary, is_fit }) => !is_primary && !is_fit;
  table('nodes', ['node', 'state', 'lag'], now.nodes.map((node, n) => [String(n), warn(node.state, isBad(node)), node.lag_ms === null ? '–' : `${node.lag_ms} ms`]));
};

/** The worst first; what else there is to say in the title. */
const tell = (problems) => {
  const [worst, ...others] = problems;
  id('state').textContent = worst ? `${worst}${others.length ? ` (and ${others.length} more)` : ''}` : 'all is well';
  id('state').title = problems.join('\n');
  id('state').className = worst ? 'bad' : '';
};

let [before, seenAt] = [null, Date.now()];
const take = (now) => {
  // What this page can show may be another thing now.
  if (before && before.version !== now.version) location.reload();
  const was = before;
  before = now;
  bounds = now.bounds_s;
  tell(now.problems);
  const isSameLife = was && now.counts.catwalk_http_requests_total >= was.counts.catwalk_http_requests_total;
  if (!isSameLife) history.length = 0;
  const gap_ms = was ? now.taken_ms - was.taken_ms : 0;
  if (!isSameLife || gap_ms <= 0 || gap_ms > GAP_MAX_MS) return;
  history.push(between(was, now));
  while (now.taken_ms - history[0].at > KEPT_MS) history.shift();
  show(now, history.at(-1));
};

const look = async () => {
  const reply = await fetch('/status.json', { cache: 'no-store', signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!reply.ok) throw new Error(`answered with ${reply.status}`);
  take(await reply.json());
  seenAt = Date.now();
  document.body.classList.remove('stale');
};

const watch = async (wait_ms) => {
  try {
    if (!document.hidden) await look();
  } catch (error) {
    const isAnswer = error.message.startsWith('answered');
    tell([`${isAnswer ? error.message : 'no answer'} for ${((Date.now() - seenAt) / 1000).toFixed(0)} s`]);
    document.body.classList.add('stale');
  } finally {
    setTimeout(watch, wait_ms ?? EVERY_MS);
  }
};
// The first rates come soon.
await watch(500);
