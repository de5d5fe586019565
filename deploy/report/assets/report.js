// The cursor of each plot follows the video that it belongs to.
const cursors = [...document.querySelectorAll("line.cursor")].map((line) => ({
  line,
  video: document.getElementById(line.dataset.video),
}));
function follow() {
  for (const { line, video } of cursors) {
    const x = Number(line.dataset.x0) + video.currentTime * Number(line.dataset.dx);
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
  }
  requestAnimationFrame(follow);
}
if (cursors.length) follow();
