// The messages of the page in its reader's language. The service fills this module in when it assembles a page.
export default {};
