<?php
// place.php?how=HOW&before=MS&ms=MS&after=MS: works for a while before it opens its session, adds one to the session's counter, and
// works on it. HOW is plain (as php.ini says), elsewhere (session_save_path() to marks/), or own (a handler of the
// application's own, which keeps sessions in marks/ and locks nothing). With after it answers by
// fastcgi_finish_request() and works on for so long, with its session open.
class Unlocked implements SessionHandlerInterface
{
    private function file(string $id): string { return __DIR__ . "/marks/own_$id"; }
    public function open(string $path, string $name): bool { return true; }
    public function close(): bool { return true; }
    public function read(string $id): string { return (string) @file_get_contents($this->file($id)); }
    public function write(string $id, string $data): bool { return file_put_contents($this->file($id), $data) !== false; }
    public function destroy(string $id): bool { @unlink($this->file($id)); return true; }
    public function gc(int $max): int { return 0; }
}
usleep(1000 * (int) ($_GET['before'] ?? 0));
switch ($_GET['how']) {
    case 'elsewhere':
        session_save_path(__DIR__ . '/marks');
        break;
    case 'own':
        session_set_save_handler(new Unlocked());
        break;
}
session_start();
$count = ($_SESSION['count'] ?? 0) + 1;
usleep(1000 * (int) ($_GET['ms'] ?? 0));
$_SESSION['count'] = $count;
header('Content-Type: text/plain');
echo $count, "\n";
if (isset($_GET['after'])) {
    fastcgi_finish_request();
    usleep(1000 * (int) $_GET['after']);
}
