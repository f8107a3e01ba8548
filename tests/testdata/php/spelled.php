<?php
// Which script ran under this name, what its lock is, and the paths that a front controller could make of REQUEST_URI: by
// comparing it as it is, decoding it once or twice, parsing or resolving it.
$root = __DIR__;
while (!is_dir("$root/marks")) {
    $root = dirname($root);
}
function resolve(string $path): string
{
    $kept = [];
    foreach (explode('/', str_replace('\\', '/', $path)) as $segment) {
        if ($segment === '..') {
            array_pop($kept);
        } elseif ($segment !== '' && $segment !== '.') {
            $kept[] = $segment;
        }
    }
    return '/' . implode('/', $kept);
}
$raw = explode('?', $_SERVER['REQUEST_URI'])[0];
$once = rawurldecode($raw);
$paths = [$raw, $once, urldecode($once), strtok($once, "\0"), strtok($once, '?'), strtok($once, '#'), parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH) ?: '/'];
foreach ($paths as $path) {
    $paths[] = resolve($path);
}
header('Content-Type: application/json');
echo json_encode([
    'ran' => substr(__FILE__, strlen($root)),
    'lock' => $_SERVER['FPM_GATE_LOCK'] ?? '',
    'paths' => array_values(array_unique($paths)),
    'host' => $_SERVER['HTTP_HOST'] ?? '',
], JSON_UNESCAPED_SLASHES | JSON_INVALID_UTF8_SUBSTITUTE), "\n";
