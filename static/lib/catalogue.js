// The messages of the page in its reader's language. The service puts them here when it assembles a page.
export default {};
