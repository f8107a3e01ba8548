<?php
// A page without a session, from which a test asks for others in all ways that a browser has.
header('Content-Type: text/html');
?>
<!DOCTYPE html>
<title>stage</title>
<link rel="icon" href="data:,">
<script>
// A browser asks only once at a time for an address that it could cache.
const who = (query = '') => `/who.php?n=${Math.random()}${query}`;
const json = (r) => r.json();
const frame = (ready) => new Promise((done) => {
    const f = document.createElement('iframe');
    f.name = 'f' + Math.random();
    document.body.append(f);
    f.onload = () => {
        const answer = f.contentDocument.querySelector('#who');
        if (answer) done(JSON.parse(answer.textContent));
    };
    ready(f);
});
const ways = {
    fetch: () => fetch(who('&say=hello')).then(json),
    fetchPost: () => fetch(who(), { method: 'POST', headers: { 'Content-Type': 'application/json', 'X-Own': '1' }, body: '{"say":"hello"}' }).then(json),
    fetchForm: () => { const b = new FormData(); b.set('say', 'hello'); b.set('file', new Blob(['x'.repeat(100000)])); return fetch(who(), { method: 'POST', body: b }).then(json); },
    fetchPut: () => fetch(who(), { method: 'PUT', body: '{"say":"hello"}' }).then(json),
    keepalive: () => fetch(who(), { method: 'POST', keepalive: true, body: '{"say":"hello"}' }).then(json),
    sameOrigin: () => fetch(who('&say=hello'), { mode: 'same-origin' }).then(json),
    xhr: () => new Promise((done, fail) => { const x = new XMLHttpRequest(); x.open('POST', who()); x.onload = () => done(JSON.parse(x.response)); x.onerror = fail; x.send('{"say":"hello"}'); }),
    events: () => new Promise((done, fail) => { const s = new EventSource(who('&event=1&say=hello')); s.onmessage = (e) => { s.close(); done(JSON.parse(e.data)); }; s.onerror = fail; }),
    page: () => frame((f) => { f.src = who('&page=1&say=hello#here'); }),
    form: () => frame((f) => {
        const form = document.body.appendChild(document.createElement('form'));
        form.method = 'post'; form.action = who('&page=1'); form.target = f.name;
        form.innerHTML = '<input name=say value=hello>';
        form.submit();
    }),
    error: () => fetch(who('&say=hello'), { redirect: 'error' }).then(json, () => ({ failed: true })),
    manual: () => fetch(who('&say=hello'), { redirect: 'manual' }).then((r) => (r.type === 'opaqueredirect' ? { failed: true } : json(r))),
};
</script>
