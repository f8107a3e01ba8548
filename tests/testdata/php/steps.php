<?php
// steps.php?mark=M&steps=A,B,...&handler=H: makes the file marks/M.0, waits until
// marks/M.0.go is there, does step A, makes marks/M.1, waits for marks/M.1.go,
// and so on. Each step is one thing that a script can do with its session. With
// handler=user the session is kept by a handler of the script's own.
ignore_user_abort(true);
$mark = __DIR__ . '/marks/' . basename($_GET['mark']);

class Own implements SessionHandlerInterface
{
    private function file(string $id): string { return __DIR__ . "/marks/own.$id"; }
    public function open($path, $name): bool { return true; }
    public function close(): bool { return true; }
    public function read($id): string { return (string) @file_get_contents($this->file($id)); }
    public function write($id, $data): bool { return file_put_contents($this->file($id), $data) !== false; }
    public function destroy($id): bool { return !file_exists($this->file($id)) || unlink($this->file($id)); }
    public function gc($lifetime): int { return 0; }
}

if (($_GET['handler'] ?? '') === 'user') {
    session_set_save_handler(new Own(), true);
}

function step(string $name): void
{
    switch ($name) {
        case 'start': session_start(); break;
        case 'close': session_write_close(); break;
        case 'commit': session_commit(); break;
        case 'abort': session_abort(); break;
        case 'read': session_start(['read_and_close' => true]); break;
        case 'destroy': session_destroy(); break;
        case 'reset': session_reset(); break;
        case 'id': session_id('anotherid'); break;
        case 'renew': session_regenerate_id(true); break;
        case 'finish': fastcgi_finish_request(); break;
    }
}

function pause(string $mark): void
{
    touch($mark);
    for ($i = 0; $i < 30000 && !file_exists("$mark.go"); $i++) {
        usleep(2000);
        clearstatcache();
    }
}

foreach (explode(',', $_GET['steps']) as $n => $name) {
    pause("$mark.$n");
    step($name);
}
pause("$mark." . ($n + 1));
echo "steps\n";
