<?php
// What the script was told: the gate's params, the session, the request. With
// info.php?session=0 it starts no session.
if (($_GET['session'] ?? '1') !== '0') {
    session_start();
}
$gate = array_filter($_SERVER, fn ($name) => strpos($name, 'FPM_GATE_') === 0, ARRAY_FILTER_USE_KEY);
header('Content-Type: application/json');
echo json_encode([
    'gate' => (object) $gate,
    'session' => session_id(),
    'method' => $_SERVER['REQUEST_METHOD'] ?? '',
    'query' => $_SERVER['QUERY_STRING'] ?? '',
    'script' => $_SERVER['SCRIPT_NAME'] ?? '',
    'path_info' => $_SERVER['PATH_INFO'] ?? '',
    'cookie' => $_SERVER['HTTP_COOKIE'] ?? '',
    'pid' => getmypid(),
], JSON_UNESCAPED_SLASHES | JSON_INVALID_UTF8_SUBSTITUTE), "\n";
