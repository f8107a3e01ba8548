<?php
// Prepended to every script of a pool: sessions are kept in files without any
// lock, as the session handlers of most frameworks keep theirs.
session_set_save_handler(new class implements SessionHandlerInterface {
    private string $dir;

    public function open(string $path, string $name): bool
    {
        $this->dir = $path;
        return true;
    }

    public function close(): bool
    {
        return true;
    }

    public function read(string $id): string
    {
        return (string) @file_get_contents($this->file($id));
    }

    public function write(string $id, string $data): bool
    {
        $new = $this->file($id) . '.' . getmypid();
        return file_put_contents($new, $data) !== false && rename($new, $this->file($id));
    }

    public function destroy(string $id): bool
    {
        return @unlink($this->file($id)) || true;
    }

    public function gc(int $max_lifetime): int
    {
        return 0;
    }

    private function file(string $id): string
    {
        return $this->dir . '/unlocked_' . bin2hex($id);
    }
});
