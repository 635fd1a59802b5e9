//! The core of sberf; this file holds the export list and nothing else.
