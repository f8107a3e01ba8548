package phpworker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// The kernel's tables of sockets are read by NETLINK_SOCK_DIAG, one socket a request; see sock_diag(7).
const (
	sockDiagByFamily = 20
	showPeer         = 1 << 2 // UDIAG_SHOW_PEER
	attrPeer         = 2      // UNIX_DIAG_PEER
	unixMsgSize      = 16     // struct unix_diag_msg
	inetMsgSize      = 72     // struct inet_diag_msg
	inetStateOffset  = 1
	inetInodeOffset  = 68
	stateEstablished = 1  // TCP_ESTABLISHED
	stateFinWait1    = 4  // TCP_FIN_WAIT1
	stateFinWait2    = 5  // TCP_FIN_WAIT2
	stateCloseWait   = 8  // TCP_CLOSE_WAIT
	stateListen      = 10 // TCP_LISTEN
	noCookie         = 0xffffffff
)

var native = binary.NativeEndian

// unixPeer returns the inode of the other end of a unix connection whose own end has the given inode. It is 0 for a
// connection that has not been accepted. The request is a struct unix_diag_req.
func unixPeer(inode uint32) (uint32, error) {
	req := make([]byte, 0, 24)
	req = append(req, unix.AF_UNIX, 0, 0, 0)
	req = native.AppendUint32(req, ^uint32(0)) // in any state
	req = native.AppendUint32(req, inode)
	req = native.AppendUint32(req, showPeer)
	req = native.AppendUint32(req, noCookie)
	req = native.AppendUint32(req, noCookie)
	msg, err := sockDiag(req)
	if errors.Is(err, unix.ENOENT) {
		return 0, fmt.Errorf("%w: the connection is of another network namespace, or closed", ErrOtherHost)
	}
	if err != nil {
		return 0, err
	}
	return peerOf(msg)
}

// peerOf finds the peer's inode in the kernel's answer about a unix socket. After its fixed part come attributes: a
// length that counts its own header, a type, the value, and padding to 4 bytes.
func peerOf(msg []byte) (uint32, error) {
	if len(msg) < unixMsgSize {
		return 0, errors.New("sock_diag: the answer is cut short")
	}
	for attrs := msg[unixMsgSize:]; len(attrs) >= 4; {
		length, kind := int(native.Uint16(attrs)), native.Uint16(attrs[2:])
		if length < 4 || length > len(attrs) {
			break
		}
		if kind == attrPeer && length >= 8 {
			return native.Uint32(attrs[4:]), nil
		}
		attrs = attrs[min((length+3)&^3, len(attrs)):]
	}
	return 0, fmt.Errorf("%w: the other end has closed the connection", ErrGone)
}

// tcpInode returns the inode of the TCP socket of this host that has the given addresses. The error is ErrWaiting for a
// connection that has not been accepted, and ErrGone for one that is closed. The request is a struct inet_diag_req_v2.
// Where the kernel finds no connection with both addresses, it answers with the socket that listens on the local one.
func tcpInode(local, remote netip.AddrPort) (uint32, error) {
	req := make([]byte, 0, 56)
	family := byte(unix.AF_INET6)
	if local.Addr().Is4() {
		family = unix.AF_INET
	}
	req = append(req, family, unix.IPPROTO_TCP, 0, 0)
	req = native.AppendUint32(req, ^uint32(0))
	req = binary.BigEndian.AppendUint16(req, local.Port())
	req = binary.BigEndian.AppendUint16(req, remote.Port())
	req = appendAddr(req, local.Addr())
	req = appendAddr(req, remote.Addr())
	req = native.AppendUint32(req, 0) // on any interface
	req = native.AppendUint32(req, noCookie)
	req = native.AppendUint32(req, noCookie)
	msg, err := sockDiag(req)
	if errors.Is(err, unix.ENOENT) || err == nil && len(msg) > inetStateOffset && msg[inetStateOffset] == stateListen {
		return 0, fmt.Errorf("%w: no socket of this network namespace has the address %s", ErrOtherHost, local)
	}
	if err != nil {
		return 0, err
	}
	if len(msg) < inetMsgSize {
		return 0, errors.New("sock_diag: the answer is cut short")
	}
	inode, state := native.Uint32(msg[inetInodeOffset:]), msg[inetStateOffset]
	switch {
	case inode != 0:
		return inode, nil
	case state == stateEstablished || state == stateCloseWait:
		return 0, ErrWaiting
	}
	return 0, ErrGone
}

// appendAddr appends an address as struct inet_diag_sockid has it: 16 bytes for both families.
func appendAddr(b []byte, a netip.Addr) []byte {
	var raw [16]byte
	copy(raw[:], a.AsSlice())
	return append(b, raw[:]...)
}

// addrPort returns an address of IP; that of an IPv4 connection on an IPv6 socket is IPv4.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// sockDiag sends one request to the kernel and returns the body of the answer. It uses a socket of its own, so no
// answer can be that of another request.
func sockDiag(req []byte) ([]byte, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, os.NewSyscallError("netlink socket", err)
	}
	defer unix.Close(fd)
	msg := make([]byte, 0, unix.SizeofNlMsghdr+len(req))
	msg = native.AppendUint32(msg, uint32(unix.SizeofNlMsghdr+len(req)))
	msg = native.AppendUint16(msg, sockDiagByFamily)
	msg = native.AppendUint16(msg, unix.NLM_F_REQUEST)
	msg = native.AppendUint32(msg, 1) // sequence number
	msg = native.AppendUint32(msg, 0) // port: the kernel's
	msg = append(msg, req...)
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sock_diag", err)
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0) // the kernel has answered already
	if err != nil {
		return nil, os.NewSyscallError("sock_diag", err)
	}
	return diagBody(answer[:n])
}

// diagBody takes the header off the kernel's answer.
func diagBody(answer []byte) ([]byte, error) {
	if len(answer) < unix.SizeofNlMsghdr {
		return nil, errors.New("sock_diag: the answer is cut short")
	}
	length, kind := int(native.Uint32(answer)), native.Uint16(answer[4:])
	if length < unix.SizeofNlMsghdr || length > len(answer) {
		return nil, errors.New("sock_diag: the answer is cut short")
	}
	body := answer[unix.SizeofNlMsghdr:length]
	switch {
	case kind == sockDiagByFamily:
		return body, nil
	case kind == unix.NLMSG_ERROR && len(body) >= 4:
		return nil, os.NewSyscallError("sock_diag", unix.Errno(-int32(native.Uint32(body))))
	}
	return nil, fmt.Errorf("sock_diag: unexpected answer of type %d", kind)
}
