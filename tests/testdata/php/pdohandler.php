<?php
// pdohandler.php is put before each script (auto_prepend_file): it keeps sessions in a table of MariaDB, as frameworks
// do, without any lock. The socket of MariaDB is in pdo_mysql.default_socket.
session_set_save_handler(new class implements SessionHandlerInterface {
    private PDO $db;
    public function open($path, $name): bool
    {
        $this->db = new PDO('mysql:dbname=app', 'visitor', 'secret', [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
        return true;
    }
    public function close(): bool { return true; }
    #[ReturnTypeWillChange]
    public function read($id)
    {
        $found = $this->db->prepare('SELECT data FROM sessions WHERE id = ?');
        $found->execute([$id]);
        return $found->fetchColumn() ?: '';
    }
    public function write($id, $data): bool
    {
        return $this->db->prepare('REPLACE INTO sessions (id, data) VALUES (?, ?)')->execute([$id, $data]);
    }
    public function destroy($id): bool
    {
        return $this->db->prepare('DELETE FROM sessions WHERE id = ?')->execute([$id]);
    }
    #[ReturnTypeWillChange]
    public function gc($max) { return 0; }
});
