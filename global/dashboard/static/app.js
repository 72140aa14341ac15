// The page: asks the replica for an overview every two seconds and draws it. Every text goes in as text, never as
// HTML: names come from other clusters.

const every = 2000;
const patience = 5000; // ms; a replica that hangs answers nothing, and must not look fresh
const staleAfter = 15000; // ms; load reports come every few seconds
const $ = id => document.getElementById(id);
let latest = null;

function make(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes)) k === 'class' ? e.className = v : e.setAttribute(k, v);
  e.append(...children.filter(c => c !== null && c !== undefined));
  return e;
}

async function call(method, message) {
  const query = new URLSearchParams({connect: 'v1', encoding: 'json', message: JSON.stringify(message)});
  const response = await fetch(`/periplus.v1.MeshService/${method}?${query}`, {cache: 'no-store', signal: AbortSignal.timeout(patience)});
  const body = await response.json();
  if (!response.ok) throw new Error(body.message || response.statusText);
  return body;
}

const number = v => Number(v || 0); // int64 travels as text
const name = s => `${s.name}.${s.namespace}`;

function age(ms) {
  if (ms === undefined || ms === null || number(ms) < 0) return 'never';
  const s = Math.round(number(ms) / 1000);
  return s < 120 ? `${s}s` : s < 7200 ? `${Math.floor(s / 60)}m` : s < 172800 ? `${Math.floor(s / 3600)}h` : `${Math.floor(s / 86400)}d`;
}

const ago = ms => number(ms) < 0 ? 'never' : age(ms) + ' ago';

function table(id, head, rows, none) {
  const t = $(id);
  if (!rows.length) { t.replaceChildren(make('caption', {class: 'empty'}, none)); return; }
  t.replaceChildren(
    make('thead', {}, make('tr', {}, ...head.map(h => make('th', {scope: 'col'}, h)))),
    make('tbody', {}, ...rows.map(cells => make('tr', {}, ...cells.map(c => c instanceof Node && c.tagName === 'TD' ? c : make('td', {}, c))))));
}

function drawRegions(o) {
  $('regions').replaceChildren(...(o.regions || []).map(r => {
    const healthy = number(r.healthyEndpoints), all = number(r.endpoints);
    const clusters = (o.clusters || []).filter(c => c.cluster.region === r.name);
    const lost = clusters.some(c => c.status === 'Stale');
    const level = healthy === 0 && all > 0 ? 'bad' : healthy < all || lost ? 'warn' : '';
    const list = make('dl'), heard = clusters.map(c => number(c.leaseAgeMs));
    const oldest = heard.some(ms => ms < 0) ? -1 : Math.max(...heard);
    for (const [k, v] of [['clusters', number(r.clusters)], ['healthy endpoints', `${healthy} of ${all}`], ['gateways', number(r.gateways)], ['agents heard', ago(oldest)]])
      list.append(make('dt', {}, k), make('dd', {}, String(v)));
    return make('div', {class: 'card ' + level}, make('b', {}, r.name), list);
  }));
}

// combine adds the cells of several services: rates add up, errors weigh by rate, latency shows the worst.
function combine(cells) {
  const rps = cells.reduce((a, c) => a + (c.requestsPerSecond || 0), 0);
  const errors = rps ? cells.reduce((a, c) => a + (c.requestsPerSecond || 0) * (c.errorRatio || 0), 0) / rps : 0;
  return {rps, errors, p50: Math.max(...cells.map(c => c.p50Ms || 0)), p99: Math.max(...cells.map(c => c.p99Ms || 0)), age: Math.max(...cells.map(c => number(c.ageMs)))};
}

const shows = {
  rps: c => c.rps.toFixed(1) + '/s',
  errors: c => (100 * c.errors).toFixed(2) + ' %',
  p50: c => c.p50.toFixed(1) + ' ms',
  p99: c => c.p99.toFixed(1) + ' ms',
};

function drawMatrix(o) {
  const service = $('service').value, measure = $('measure').value;
  const regions = (o.regions || []).map(r => r.name);
  const cells = (o.traffic || []).filter(c => !service || name(c.service) === service);
  const at = (from, to) => cells.filter(c => c.sourceRegion === from && c.destinationRegion === to);
  const all = regions.flatMap(from => regions.map(to => at(from, to))).filter(x => x.length).map(combine);
  const most = Math.max(1e-9, ...all.map(c => c[measure]));
  const head = make('tr', {}, make('th', {}, 'from \\ to'), ...regions.map(r => make('th', {scope: 'col'}, r)));
  const rows = regions.map(from => make('tr', {}, make('th', {scope: 'row'}, from), ...regions.map(to => {
    const found = at(from, to), own = from === to ? 'own' : '';
    if (!found.length) return make('td', {class: 'empty ' + own}, '–');
    const c = combine(found);
    const td = make('td', {class: `${own} ${c.age > staleAfter ? 'stale' : ''} ${c.errors > 0 ? 'bad' : ''}`, 'data-from': from, 'data-to': to},
      shows[measure](c), make('span', {class: 'age'}, `${c.errors > 0 && measure !== 'errors' ? (100 * c.errors).toFixed(1) + ' % failed, ' : ''}${age(c.age)} ago`));
    td.style.background = `rgba(var(--heat), ${(0.45 * c[measure] / most).toFixed(3)})`;
    return td;
  })));
  $('matrix').replaceChildren(make('thead', {}, head), make('tbody', {}, ...rows));
}

function drawClusters(o) {
  table('clusters', ['Cluster', 'Region', 'Status', 'Agent heard', 'Services', 'Endpoints', 'Gateways', 'Proxies', 'Trust domain', 'Bundle', 'Credential ends', 'Version'],
    (o.clusters || []).map(c => [
      c.cluster.id, c.cluster.region,
      make('td', {class: {Connected: 'good', Stale: 'bad', Drained: 'warn'}[c.status] || ''}, c.status || ''),
      ago(c.leaseAgeMs),
      `${number(c.services)} (${number(c.exportedServices)} exported)`,
      make('td', {class: number(c.healthyEndpoints) < number(c.endpoints) ? 'warn' : ''}, `${number(c.healthyEndpoints)} of ${number(c.endpoints)}`),
      number(c.gateways), number(c.proxies), c.cluster.trustDomain, number(c.bundleSequence),
      number(c.credentialExpiresAtMs) ? 'in ' + age(number(c.credentialExpiresAtMs) - number(o.nowMs)) : '–', c.agentVersion || '–',
    ].map(v => v instanceof Node ? v : String(v))), 'No cluster is registered: periplus cluster register');
}

function drawServices(o) {
  const clusters = (o.clusters || []).map(c => c.cluster.id);
  const heads = (o.clusters || []).map(c => make('span', {}, c.cluster.id, make('span', {class: 'age'}, ago(c.leaseAgeMs))));
  table('services', ['Service', ...heads], (o.services || []).map(s => [name(s.name), ...clusters.map(id => {
    const c = (s.clusters || []).find(x => x.cluster === id);
    if (!c) return make('td', {class: 'empty'}, '–');
    const healthy = number(c.healthyEndpoints), all = number(c.endpoints);
    return make('td', {class: all && !healthy ? 'bad' : healthy < all ? 'warn' : ''}, `${healthy} of ${all}${c.exported ? '' : ' (not exported)'}`);
  })]), 'No service yet.');
}

function drawMembers(o) {
  table('members', ['Replica', 'Role', 'Region', 'Address', 'Votes', 'Applied', 'Heard'], (o.members || []).map(m => [
    m.id, make('td', {class: m.role === 'leader' ? 'good' : m.role === 'unknown' ? 'bad' : ''}, m.role || ''), m.region || '', m.address || '',
    m.voter ? 'yes' : 'no', String(number(m.appliedIndex)), number(m.ageMs) ? ago(m.ageMs) : 'now',
  ]), 'No replica.');
}

function fill(id, values, keepFirst) {
  const select = $(id), old = select.value;
  const first = keepFirst ? [select.options[0]] : [];
  const have = [...select.options].slice(first.length).map(x => x.value);
  if (have.join('\n') === values.join('\n')) return;
  select.replaceChildren(...first, ...values.map(v => make('option', {value: v}, v)));
  if (values.includes(old)) select.value = old;
}

function draw(o) {
  latest = o;
  const services = (o.services || []).map(s => name(s.name));
  fill('service', services, true);
  fill('to', services, false);
  fill('from', (o.clusters || []).map(c => c.cluster.id), false);
  $('summary').textContent = `${(o.regions || []).length} regions, ${(o.clusters || []).length} clusters, ${services.length} services`;
  // Without a leader nothing new is agreed on, or this replica does not hear of it.
  const behind = number(o.stateAgeMs), old = behind < 0 || behind > staleAfter;
  $('state').textContent = `revision ${o.revision || 0}${old ? `, as of ${ago(behind)}` : ''}; leader ${o.leader || 'none'}; told by ${o.replica}`;
  $('state').className = o.leader && !old ? '' : 'bad';
  drawRegions(o); drawMatrix(o); drawClusters(o); drawServices(o); drawMembers(o);
}

function place(e) { return [e.locality?.region, e.locality?.zone, e.locality?.subzone].filter(Boolean).join('/'); }

async function explain() {
  const out = $('explanation');
  try {
    const r = await call('Explain', {fromCluster: $('from').value, service: $('to').value});
    const section = (title, endpoints) => [make('h3', {}, title), make('table', {}, make('tbody', {}, ...(endpoints || []).map(e => make('tr', {},
      make('td', {}, e.share ? (100 * e.share).toFixed(1) + ' %' : ''), make('td', {}, e.name || e.address), make('td', {}, e.address || ''), make('td', {}, e.cluster || ''),
      make('td', {}, place(e)), make('td', {}, e.reason || '')))))];
    out.replaceChildren(...(r.levels || []).flatMap(l => section(`Priority ${l.priority || 0}: ${(100 * (l.share || 0)).toFixed(1)} % of the requests`, l.endpoints)),
      ...(r.dropped?.length ? section('Not used', r.dropped) : []), ...(r.levels?.length ? [] : [make('p', {class: 'bad'}, 'No endpoint: requests fail.')]));
  } catch (e) { out.replaceChildren(make('p', {class: 'bad'}, e.message)); }
}

async function loop() {
  try { draw(await call('Overview', {})); document.body.classList.remove('stale'); }
  catch (e) {
    $('summary').textContent = `This replica does not answer (${e.message}); what is shown is old.`;
    document.body.classList.add('stale');
  }
  setTimeout(loop, every);
}

$('service').addEventListener('change', () => latest && drawMatrix(latest));
$('measure').addEventListener('change', () => latest && drawMatrix(latest));
$('ask').addEventListener('click', explain);
loop();
