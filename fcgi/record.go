package fcgi

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// RecordType is the type of a record (section 3.3).
type RecordType uint8

// The record types, each with the layout of its content.
const (
	TypeBeginRequest    RecordType = 1  // 2B role + 1B flags + 5B reserved
	TypeAbortRequest    RecordType = 2  // empty
	TypeEndRequest      RecordType = 3  // 4B app status + 1B protocol status + 3B reserved
	TypeParams          RecordType = 4  // stream of name-value pairs
	TypeStdin           RecordType = 5  // stream of bytes
	TypeStdout          RecordType = 6  // stream of bytes
	TypeStderr          RecordType = 7  // stream of bytes
	TypeData            RecordType = 8  // stream of bytes, of a Filter only
	TypeGetValues       RecordType = 9  // name-value pairs with empty values; a management record
	TypeGetValuesResult RecordType = 10 // name-value pairs; a management record
	TypeUnknownType     RecordType = 11 // 1B type + 7B reserved; a management record
)

// Role is the role that a web server wants the application to play (section 6).
type Role uint16

// The roles.
const (
	RoleResponder  Role = 1
	RoleAuthorizer Role = 2
	RoleFilter     Role = 3
)

// ProtocolStatus is the second half of an end request record (section 5.5).
type ProtocolStatus uint8

// The protocol statuses.
const (
	StatusRequestComplete ProtocolStatus = 0 // the normal end
	StatusCantMpxConn     ProtocolStatus = 1 // a second request on a busy conn
	StatusOverloaded      ProtocolStatus = 2 // out of some resource
	StatusUnknownRole     ProtocolStatus = 3
)

// The limits and sizes of a record.
const (
	version       = 1
	flagKeepConn  = 1         // in the flags of a begin request
	headerLen     = 8         // section 3.3
	maxContent    = 1<<16 - 1 // section 3.3: the content length is 16 bits
	maxPadding    = 1<<8 - 1  // section 3.3: the padding length is 8 bits
	maxRecord     = headerLen + maxContent + maxPadding
	beginBodyLen  = 8 // section 5.1
	endBodyLen    = 8 // section 5.5
	flagsOffset   = headerLen + 2
	managementID  = 0 // section 3.3: the request id of a management record
	endRequestLen = headerLen + endBodyLen
)

// ErrMalformed is wrapped by every error about bytes that are not FastCGI.
var ErrMalformed = errors.New("malformed FastCGI")

// Header is the head of a record: 1B version, 1B type, 2B request id, 2B content length, 1B padding
// length, 1B reserved.
type Header struct {
	Version       uint8
	Type          RecordType
	RequestID     uint16
	ContentLength int // bytes of content, at most 65535
	PaddingLength int // bytes of padding after it, at most 255
}

// ParseHeader parses the first eight bytes of b, which must exist.
func ParseHeader(b []byte) Header {
	_ = b[headerLen-1]
	return Header{
		Version:       b[0],
		Type:          RecordType(b[1]),
		RequestID:     binary.BigEndian.Uint16(b[2:]),
		ContentLength: int(binary.BigEndian.Uint16(b[4:])),
		PaddingLength: int(b[6]),
	}
}

// Len returns the length of the whole record in bytes: header, content and padding.
func (h Header) Len() int { return headerLen + h.ContentLength + h.PaddingLength }

// append appends the eight bytes of h to b.
func (h Header) append(b []byte) []byte {
	b = append(b, h.Version, byte(h.Type))
	b = binary.BigEndian.AppendUint16(b, h.RequestID)
	b = binary.BigEndian.AppendUint16(b, uint16(h.ContentLength))
	return append(b, uint8(h.PaddingLength), 0)
}

// setRequestID changes the id of the first record in b.
func setRequestID(b []byte, id uint16) { binary.BigEndian.PutUint16(b[2:], id) }

// setRequestIDs changes the id of all records in b. The last one need not be complete.
func setRequestIDs(b []byte, id uint16) {
	for len(b) >= headerLen {
		setRequestID(b, id)
		b = b[min(ParseHeader(b).Len(), len(b)):]
	}
}

// check returns an error if the header is not one of FastCGI 1.
func (h Header) check() error {
	if h.Version != version {
		return fmt.Errorf("%w: record has version %d, want %d", ErrMalformed, h.Version, version)
	}
	return nil
}

// AppendRecord appends one record without padding. The content must have at most 65535 bytes.
func AppendRecord(b []byte, t RecordType, id uint16, content []byte) []byte {
	b = Header{Version: version, Type: t, RequestID: id, ContentLength: len(content)}.append(b)
	return append(b, content...)
}

// AppendStream appends content as one or more records of a stream, without the empty record that ends the stream. Empty
// content appends nothing.
func AppendStream(b []byte, t RecordType, id uint16, content []byte) []byte {
	for len(content) > 0 {
		n := min(len(content), maxContent)
		b = AppendRecord(b, t, id, content[:n])
		content = content[n:]
	}
	return b
}

// AppendBeginRequest appends a begin request record.
func AppendBeginRequest(b []byte, id uint16, role Role, keepConn bool) []byte {
	body := [beginBodyLen]byte{0: byte(role >> 8), 1: byte(role)}
	if keepConn {
		body[2] = flagKeepConn
	}
	return AppendRecord(b, TypeBeginRequest, id, body[:])
}

// AppendEndRequest appends an end request record.
func AppendEndRequest(b []byte, id uint16, appStatus uint32, status ProtocolStatus) []byte {
	var body [endBodyLen]byte
	binary.BigEndian.PutUint32(body[:], appStatus)
	body[4] = byte(status)
	return AppendRecord(b, TypeEndRequest, id, body[:])
}

// appendUnknownType appends the answer to a management record of an unknown type.
func appendUnknownType(b []byte, t RecordType) []byte {
	body := [8]byte{0: byte(t)}
	return AppendRecord(b, TypeUnknownType, managementID, body[:])
}
