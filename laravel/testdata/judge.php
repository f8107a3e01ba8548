<?php
// Illuminate itself: one request a line, as JSON, and one answer a line.
//
// {"make": "…", "name": "…", …} answers with the value of the cookie in which EncryptCookies sends that text.
// {"open": "hex", "name": "…", …} answers with the session id that StartSession takes from that value, or an empty line.
foreach (['Cookie', 'Encryption', 'Http', 'Session'] as $part) {
    require_once "/usr/share/php/Illuminate/$part/autoload.php";
}
use Illuminate\Cookie\Middleware\EncryptCookies;
use Illuminate\Encryption\Encrypter;
use Illuminate\Session\NullSessionHandler;
use Illuminate\Session\Store;
use Symfony\Component\HttpFoundation\Cookie;
use Symfony\Component\HttpFoundation\Response;

class Cookies extends EncryptCookies
{
    public static function serialize(bool $on): void
    {
        static::$serialize = $on;
    }
}

while (($line = fgets(STDIN)) !== false) {
    $q = json_decode($line, true);
    Cookies::serialize($q['serialize'] ?? false);
    $cookies = new Cookies(new Encrypter(base64_decode($q['key']), $q['cipher']));
    if (isset($q['make'])) {
        $response = $cookies->handle(new Illuminate\Http\Request(), function () use ($q) {
            $response = new Response();
            $response->headers->setCookie(Cookie::create($q['name'], $q['make']));
            return $response;
        });
        echo $response->headers->getCookies()[0]->getValue(), "\n";
        continue;
    }
    $taken = null;
    $request = new Illuminate\Http\Request([], [], [], [$q['name'] => hex2bin($q['open'])]);
    $cookies->handle($request, function ($request) use ($q, &$taken) {
        $taken = $request->cookies->get($q['name']);
        return new Response();
    });
    $store = new Store($q['name'], new NullSessionHandler());
    echo $store->isValidId($taken) ? $taken : '', "\n";
}
