<?php
// A session of Symfony's HttpFoundation. do=add puts one more into a list in it, after ms= milliseconds of work; do=list
// answers with how many there are. The params SESSION_HANDLER (native, redis or pdo), REDIS_PORT and DATABASE configure it.
require_once '/usr/share/php/Symfony/Component/HttpFoundation/autoload.php';
use Symfony\Component\HttpFoundation\Response;
use Symfony\Component\HttpFoundation\Session\Session;
use Symfony\Component\HttpFoundation\Session\Storage\Handler\PdoSessionHandler;
use Symfony\Component\HttpFoundation\Session\Storage\Handler\RedisSessionHandler;
use Symfony\Component\HttpFoundation\Session\Storage\NativeSessionStorage;

error_reporting(E_ALL & ~E_DEPRECATED);
$handler = null;
if ($_SERVER['SESSION_HANDLER'] === 'redis') {
    $redis = new Redis();
    $redis->connect('127.0.0.1', (int) $_SERVER['REDIS_PORT']);
    $handler = new RedisSessionHandler($redis);
} elseif ($_SERVER['SESSION_HANDLER'] === 'pdo') {
    $handler = new PdoSessionHandler('sqlite:' . $_SERVER['DATABASE'], ['lock_mode' => PdoSessionHandler::LOCK_NONE]);
}
$session = new Session(new NativeSessionStorage(['name' => 'symfony_app'], $handler));
$session->start();
if ($_GET['do'] === 'add') {
    $list = $session->get('list', []);
    usleep(1000 * (int) ($_GET['ms'] ?? 0));
    $session->set('list', [...$list, 1]);
    $session->save();
}
(new Response((string) count($session->get('list', []))))->send();
