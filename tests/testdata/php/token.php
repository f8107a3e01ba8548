<?php
// token.php?servers=HOST:PORT,…: looks for its own lock in memcached, as a script would that wants to be sure of it,
// and prints "LOCK N": FPM_GATE_LOCK, and how many of the servers have FPM_GATE_TOKEN. With mark=M it makes the file
// marks/M.started first and looks until all of them have it.
if (isset($_GET['mark'])) {
    touch(__DIR__ . '/marks/' . basename($_GET['mark']) . '.started');
}
$servers = explode(',', $_GET['servers']);
for ($i = 0; $i < 10000; $i++) {
    $found = 0;
    foreach ($servers as $server) {
        $memcached = new Memcached();
        $memcached->addServer(...explode(':', $server));
        $value = (string) $memcached->get("fpm-gate:{$_SERVER['FPM_GATE_KEY']}");
        $words = explode(' ', $value); // held TOKEN SINCE GATE HOST
        $found += $words[0] === 'held' && $words[1] === $_SERVER['FPM_GATE_TOKEN'];
    }
    if (!isset($_GET['mark']) || $found === count($servers)) {
        break;
    }
    usleep(2000);
}
header('Content-Type: text/plain');
echo "{$_SERVER['FPM_GATE_LOCK']} $found\n";
