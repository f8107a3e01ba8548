<?php
// An application of Illuminate, Laravel's components: EncryptCookies, StartSession, and then what do= names:
//
//   count   answers with one more than the counter in the session had, after it has worked for ms= milliseconds
//   login   puts the user of user= into the session, under a new id
//   logout  takes the session away, after ms= milliseconds
//   who     answers with the user, after ms= milliseconds, and has touched the session meanwhile
//   stream  makes a mark, sends a body in two parts, and waits in between until it is let go
//   enter   is login and then stream: the browser has its new cookie while the script works on
//
// The params APP_KEY, SESSION_DRIVER (file or redis), SESSION_FILES and REDIS_PORT configure it.
foreach (['Cache', 'Config', 'Container', 'Cookie', 'Encryption', 'Filesystem', 'Http', 'Redis', 'Session'] as $part) {
    require_once "/usr/share/php/Illuminate/$part/autoload.php";
}
use Illuminate\Cache\CacheManager;
use Illuminate\Config\Repository;
use Illuminate\Container\Container;
use Illuminate\Cookie\Middleware\EncryptCookies;
use Illuminate\Encryption\Encrypter;
use Illuminate\Filesystem\Filesystem;
use Illuminate\Http\Request;
use Illuminate\Http\Response;
use Illuminate\Redis\RedisManager;
use Illuminate\Session\Middleware\StartSession;
use Illuminate\Session\SessionManager;
use Symfony\Component\HttpFoundation\StreamedResponse;

error_reporting(E_ALL & ~E_DEPRECATED); // an older Illuminate with a newer PHP
$redis = ['client' => 'phpredis', 'options' => [], 'default' => ['host' => '127.0.0.1', 'port' => (int) ($_SERVER['REDIS_PORT'] ?? 0)]];
$app = Container::setInstance(new Container());
$app->instance('config', new Repository([
    'session' => [
        'driver' => $_SERVER['SESSION_DRIVER'], 'lifetime' => 120, 'expire_on_close' => true, 'encrypt' => false,
        'files' => $_SERVER['SESSION_FILES'], 'connection' => null, 'store' => null, 'lottery' => [0, 100],
        'cookie' => 'my_shop_session', 'path' => '/', 'domain' => null, 'secure' => false, 'http_only' => true,
    ],
    'cache' => ['default' => 'redis', 'prefix' => '', 'stores' => ['redis' => ['driver' => 'redis', 'connection' => 'default']]],
    'database' => ['redis' => $redis],
]));
$app->instance('files', new Filesystem());
$app->singleton('cache', fn ($app) => new CacheManager($app));
$app->singleton('redis', fn ($app) => new RedisManager($app, 'phpredis', $redis));

function mark(string $name): void
{
    touch(__DIR__ . '/marks/' . $_GET['mark'] . '.' . $name);
}

function await(): void
{
    mark('started');
    while (!file_exists(__DIR__ . '/marks/' . $_GET['mark'] . '.go')) {
        usleep(1000);
        clearstatcache();
    }
    mark('ended');
}

$work = function (Request $request) {
    $session = $request->session();
    usleep(1000 * (int) $request->query('ms', 0));
    switch ($request->query('do')) {
        case 'count':
            $session->put('count', $session->get('count', 0) + 1);
            return new Response((string) $session->get('count'));
        case 'login':
            $session->migrate(true);
            $session->put('user', $request->query('user'));
            return new Response('in');
        case 'logout':
            $session->invalidate();
            return new Response('out');
        case 'enter':
            $session->migrate(true);
            $session->put('user', $request->query('user'));
            // and as stream
        case 'stream':
            return new StreamedResponse(function () {
                echo "first\n";
                while (ob_get_level() > 0) {
                    ob_end_flush();
                }
                flush();
                await();
                echo "last\n";
            });
    }
    $session->put('seen', microtime(true));
    return new Response($session->get('user', 'nothing'));
};

$manager = new SessionManager($app);
$cookies = new EncryptCookies(new Encrypter(base64_decode(substr($_SERVER['APP_KEY'], 7)), 'AES-256-CBC'));
$start = new StartSession($manager);
$response = $cookies->handle(Request::capture(), fn ($request) => $start->handle($request, $work));
$response->headers->set('X-Lock', $_SERVER['FPM_GATE_LOCK'] ?? 'ungated');
$response->send();
