// The status page: an overview every two seconds, and what lies between two of them. Counts are since the server's start; rates are made here.

const EVERY_MS = 2000;
const KEPT = 150;
const PLOTTED = 6;
const COLOURS = ['#4ea1ff', '#f2a33c', '#55c28b', '#e5677d', '#a98bf0', '#c9b458'];

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
const time = (seconds) => {
  if (!Number.isFinite(seconds)) return '–';
  if (seconds < 1e-3) return `${(seconds * 1e6).toFixed(0)} µs`;
  return seconds < 1 ? `${(seconds * 1e3).toFixed(1)} ms` : `${seconds.toFixed(2)} s`;
};
const size = (bytes) => (bytes >= 2 ** 30 ? `${(bytes / 2 ** 30).toFixed(1)} GiB` : `${(bytes / 2 ** 20).toFixed(0)} MiB`);
const age = (seconds) => (seconds >= 86400 ? `${(seconds / 86400).toFixed(1)} d` : seconds >= 3600 ? `${(seconds / 3600).toFixed(1)} h` : seconds >= 60 ? `${(seconds / 60).toFixed(0)} min` : `${seconds} s`);

/** The time within which `part` of the answers were made: between the bounds of its bucket by its place in it. */
const quantile = (buckets, bounds, part) => {
  const all = buckets.reduce((sum, n) => sum + n, 0);
  if (!all) return NaN;
  let below = 0;
  for (const [n, count] of buckets.entries()) {
    if (below + count >= part * all) {
      if (n >= bounds.length) return bounds.at(-1);
      const from = n ? bounds[n - 1] : 0;
      return from + (bounds[n] - from) * ((part * all - below) / count);
    }
    below += count;
  }
  return NaN;
};

/** What happened between two overviews. */
const between = (before, now) => {
  const seconds = Math.max((now.taken_ms - before.taken_ms) / 1000, 0.001);
  const rate = (name) => Math.max(0, (now.counts[name] - before.counts[name]) / seconds);
  const routes = now.routes.map((route, n) => {
    const buckets = route.buckets.map((count, b) => Math.max(0, count - before.routes[n].buckets[b]));
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
  return { at: now.taken_ms, rate, routes, all, statements, cpu: spent?.all ? 1 - spent.idle / spent.all : NaN, stolen: spent?.all ? spent.stolen / spent.all : NaN };
};

const history = [];
const plots = new Map();

/** Lines over the last five minutes; `read` makes a point's values, by name. */
const plot = (title, unit, read) => {
  const svg = drawn('svg', { viewBox: '0 0 600 180', preserveAspectRatio: 'none', role: 'img' });
  const [now, legend] = [element('span'), element('ul', { className: 'legend' })];
  id('plots').append(element('div', { className: 'plot' }, element('h2', {}, title, now), svg, legend));
  plots.set(title, () => {
    const points = history.map(read);
    const names = Object.keys(points.at(-1) ?? {});
    const most = Math.max(...points.flatMap((point) => Object.values(point).filter(Number.isFinite)), 1e-9) * 1.1;
    const x = (n) => 600 - (history.length - 1 - n) * (600 / (KEPT - 1));
    const lines = names.map((name, n) => {
      const path = points.map((point, at) => [x(at), point[name]]).filter(([, value]) => Number.isFinite(value)).map(([at, value]) => `${at.toFixed(1)},${(176 - (value / most) * 168).toFixed(1)}`);
      return drawn('polyline', { points: path.join(' '), stroke: COLOURS[n % COLOURS.length] });
    });
    const grid = [0.25, 0.5, 0.75, 1].map((part) => drawn('line', { x1: 0, x2: 600, y1: 176 - part * 153, y2: 176 - part * 153 }));
    svg.replaceChildren(...grid, ...lines);
    svg.setAttribute('aria-label', `${title}: ${names.map((name) => `${name} ${unit(points.at(-1)[name])}`).join(', ')}`);
    now.textContent = `up to ${unit(most / 1.1)}`;
    legend.replaceChildren(...names.map((name, n) => {
      const mark = element('i');
      mark.style.background = COLOURS[n % COLOURS.length];
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
const byRoute = (value) => (point) => Object.fromEntries(busiest().map((name) => [name, value(point.routes.find((route) => route.name === name))]));
let bounds = [];

plot('Requests a second', number, byRoute((route) => route.rate));
plot('p50 by route', time, byRoute((route) => quantile(route.buckets, bounds, 0.5)));
plot('p99 by route', time, byRoute((route) => quantile(route.buckets, bounds, 0.99)));
plot('Hit ratio, CPU', percent, (point) => ({ hits: point.hits, CPU: point.cpu, stolen: point.stolen }));

const table = (name, heads, rows) => {
  const row = (cells, kind) => element('tr', {}, ...cells.map((cell) => (cell instanceof Node ? cell : element(kind, {}, cell))));
  const empty = element('tr', {}, element('td', { colSpan: heads.length }, 'none'));
  id(name).replaceChildren(element('thead', {}, row(heads, 'th')), element('tbody', {}, ...(rows.length ? rows.map((cells) => row(cells, 'td')) : [empty])));
};
const warn = (text, isBad) => element('td', { className: isBad ? 'bad' : '' }, text);

const tiles = (now, point) => {
  const { counts, workers, cache, feed, machine } = now;
  const errors = point.rate('catwalk_http_responses_total{class="5xx"}');
  const lag = Math.max(...now.nodes.map((node) => node.lag_ms ?? 0));
  const burst = machine.baseline ? `${percent(point.cpu / machine.baseline)} of ${machine.instance}'s baseline` : `stolen ${percent(point.stolen)}`;
  const all = [
    ['requests/s', number(point.rate('catwalk_http_requests_total')), `${number(errors)} errors/s`, errors > 0],
    ['p99', time(quantile(point.all, bounds, 0.99)), `p50 ${time(quantile(point.all, bounds, 0.5))}`],
    ['hit ratio', percent(point.hits), `${number(point.rate('catwalk_cache_misses_total'))} misses/s`],
    ['cache', percent(1 - cache.segments_free / Math.max(cache.segments, 1)), `of ${size(cache.size_bytes)}; ${number(point.rate('catwalk_cache_evicted_total'))} evicted/s`],
    ['freshness', feed.watermark_age_ms === null ? '–' : `${feed.watermark_age_ms.toFixed(0)} ms`, `every change before is seen; ${feed.state}`, feed.watermark_age_ms > 250],
    ['workers', `${workers.serving}/${workers.wanted}`, workers.crash_looping ? `${workers.crash_looping} keep dying` : 'serving', workers.serving < workers.wanted],
    ['connections', number(counts.catwalk_http_connections_open), `database ${counts.catwalk_db_connections_open}/${counts.catwalk_db_connections_wanted}`],
    ['CPU', percent(point.cpu), burst, point.stolen > 0.05],
  ];
  if (now.nodes.length > 1) all.push(['replica lag', `${lag} ms`, `${now.nodes.length} nodes`, lag > 100]);
  id('tiles').replaceChildren(...all.map(([name, value, more, isBad]) => element('div', { className: isBad ? 'tile bad' : 'tile' }, element('span', {}, name), element('b', {}, value), element('small', {}, more))));
};

const show = (now, point) => {
  id('host').textContent = `${now.host} · ${now.version}`;
  tiles(now, point);
  plots.forEach((draw) => draw());
  const routes = point.routes.filter((route) => route.rate > 0).sort((a, b) => b.rate - a.rate);
  table('routes', ['route', 'requests/s', 'p50', 'p99'], routes.map((route) => [route.name, number(route.rate), time(quantile(route.buckets, bounds, 0.5)), time(quantile(route.buckets, bounds, 0.99))]));
  const statements = [...point.statements].sort((a, b) => b.busy - a.busy || b.sum_ns - a.sum_ns).slice(0, 10);
  table('statements', ['catwalk explain …', 'runs/s', 'mean', 'longest', 'busy'], statements.map((runs) => [runs.name, number(runs.rate), time(Number.isFinite(runs.mean_s) ? runs.mean_s : runs.sum_ns / runs.count / 1e9), time(runs.longest_ns / 1e9), percent(runs.busy)]));
  table('hottest', ['key', 'of the hits'], now.hottest.map((hot) => [hot.key, percent(hot.share)]));
  table('processes', ['pid', 'phase', 'age', 'beat', 'requests', 'deaths'], now.workers.processes.map((process) => [String(process.pid), process.phase, age(process.age_s), warn(`${process.beat_age_ms} ms`, process.beat_age_ms > 2000), number(process.requests), warn(String(process.deaths), process.deaths > 0)]));
  table('nodes', ['node', 'state', 'lag'], now.nodes.map((node, n) => [String(n), node.state, node.lag_ms === null ? '–' : `${node.lag_ms} ms`]));
};

let before = null;
const look = async () => {
  try {
    const now = await (await fetch('/status.json', { cache: 'no-store' })).json();
    bounds = now.bounds_s;
    // A server that was started anew counts from zero.
    if (before && now.counts.catwalk_http_requests_total >= before.counts.catwalk_http_requests_total) {
      const point = between(before, now);
      const [hits, misses] = ['catwalk_cache_hits_total', 'catwalk_cache_misses_total'].map(point.rate);
      point.hits = hits / (hits + misses);
      history.push(point);
      history.splice(0, history.length - KEPT);
      show(now, point);
    }
    before = now;
    const isWell = now.workers.serving >= now.workers.wanted && !now.workers.crash_looping;
    id('state').textContent = isWell ? 'all workers serve' : 'workers are missing';
    id('state').className = isWell ? '' : 'bad';
  } catch {
    id('state').textContent = 'the server does not answer';
    id('state').className = 'bad';
  }
};

await look();
setInterval(() => document.hidden || look(), EVERY_MS);
setTimeout(look, 500);
