package rig

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// fastcgiGet requests one of a FastCGI responder's own pages, as a health check would, and returns the page's body. The
// rig has its own minimal client so that no code under test judges itself.
func fastcgiGet(ctx context.Context, addr Addr, page, query string) ([]byte, error) {
	nc, err := (&net.Dialer{}).DialContext(ctx, addr.Network, addr.Address)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := nc.Write(getRequest(page, query)); err != nil {
		return nil, err
	}
	response, err := readStdout(nc)
	if err != nil {
		return nil, fmt.Errorf("ask %s for %s: %w", addr, page, err)
	}
	header, body, ok := bytes.Cut(response, []byte("\r\n\r\n"))
	if !ok || bytes.HasPrefix(header, []byte("Status:")) {
		return nil, fmt.Errorf("ask %s for %s: got %q", addr, page, header)
	}
	return body, nil
}

// The record types that a request for a page needs.
const (
	typeBeginRequest = 1
	typeEndRequest   = 3
	typeParams       = 4
	typeStdin        = 5
	typeStdout       = 6
)

func getRequest(page, query string) []byte {
	var params []byte
	for _, p := range [][2]string{
		{"REQUEST_METHOD", "GET"}, {"SCRIPT_NAME", page}, {"SCRIPT_FILENAME", page}, {"QUERY_STRING", query},
	} {
		params = append(params, byte(len(p[0])), byte(len(p[1])))
		params = append(params, p[0]+p[1]...)
	}
	var request []byte
	request = appendRecord(request, typeBeginRequest, []byte{0, 1, 0, 0, 0, 0, 0, 0}) // a responder, conn not kept
	request = appendRecord(request, typeParams, params)
	request = appendRecord(request, typeParams, nil)
	return appendRecord(request, typeStdin, nil)
}

func appendRecord(b []byte, recordType byte, content []byte) []byte {
	b = append(b, 1, recordType, 0, 1) // version, type, request id 1
	b = binary.BigEndian.AppendUint16(b, uint16(len(content)))
	b = append(b, 0, 0) // no padding, reserved
	return append(b, content...)
}

func readStdout(r io.Reader) ([]byte, error) {
	var stdout []byte
	for {
		var header [8]byte
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return nil, fmt.Errorf("before end request: %w", errors.Join(err, io.ErrUnexpectedEOF))
		}
		length := int(binary.BigEndian.Uint16(header[4:]))
		record := make([]byte, length+int(header[6]))
		if _, err := io.ReadFull(r, record); err != nil {
			return nil, err
		}
		switch header[1] {
		case typeStdout:
			stdout = append(stdout, record[:length]...)
		case typeEndRequest:
			return stdout, nil
		}
	}
}
