// Package record is what the proxy tells about one finished request or connection.
//
// The data path fills one [Record] per exchange, in memory that it reuses, and hands it to an [Observer] once. An
// observer copies what it keeps: strings of a Record may be views of a connection's buffer and are valid only until
// Observe returns. Nobody here reads a clock, allocates or blocks.
package record
