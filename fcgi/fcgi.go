// Package fcgi speaks FastCGI between web servers, the gate and PHP-FPM: records and params, the server side of a
// connection, the relay of a request, and the pool of connections to PHP-FPM.
//
// A conn is a connection from a web server (Conn), an upstream connection one to PHP-FPM (Pool). The package follows
// the record boundaries of what it relays but does not read the contents, except the header block of a response. It
// knows nothing of PHP sessions or of locks.
//
// It uses the words of the FastCGI specification, version 1.0; section numbers in comments refer to it.
package fcgi
